"""Which part of the model an operation of the exported program computes, by the name that PyTorch has for it.

The static graph is folded and has modules of its own. Here they get the names of those modules of the reference model
whose work they do, as `model.named_modules()` lists them. A module that is folded into another one has no operations.
"""

import re
from collections.abc import Collection

from torch.fx import Node

RENAMED = (  # static graph -> reference model, one after the other
    (r"^network\.", ""),
    (r"^(backbone\.)?stem\.0", r"\1stem.conv"),
    (r"^(backbone\.)?stem\.1", r"\1lite_bottleneck.pw_conv1"),
    (r"^(backbone\.)?stem\.2", r"\1lite_bottleneck.dw_conv"),
    (r"^(backbone\.)?stem\.3", r"\1lite_bottleneck.pw_conv2"),
    (r"^((?:backbone\.)?blocks\.\d+)\.(downsample|pw_conv1|dw_conv|pw_conv2)", r"\1.dynamic_mobile.\2"),
    (r"\.routing", ".kernel_attention"),
    (r"\.(generate|convs)\.\d+(\.parts\.\d+|(\.layer)?\.linear)?$", ""),
    (r"former\.(qkv|proj)$", r"former.token_attention.\1"),
    (r"former\.(fc1|fc2)$", r"former.mlp.\1"),
    (r"cross\b", "mobile2former"),
    (r"ffn\.expand$", "ffn.pw_conv1"),
    (r"ffn\.depthwise$", "ffn.dw_conv"),
    (r"ffn\.reduce$", "ffn.pw_conv2"),
    (r"^fc", "head.fc"),
)
# what such a module computes itself, belongs to what it takes it from
CONTAINER = re.compile(r"(network\.?)?(backbone\.?)?(blocks\.\d+)?$")


def pytorch_name(node: Node, root: str = "") -> str:
    """The module that a node computes; "" for the image itself. `root` is where the static graph lies in it."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = stack[-1][0] if stack else ""
    within_root = path.startswith(root)
    name = path[len(root) :].lstrip(".") if within_root else ""
    if CONTAINER.match(name):
        return pytorch_name(node.all_input_nodes[0], root) if node.all_input_nodes else ""
    return renamed(name)


def renamed(name: str) -> str:
    """The module of the model whose work a module of the static graph does."""
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def is_within(module: str, names: Collection[str]) -> bool:
    """Whether a module is one of these, or a part of one."""
    return any(f"{module}.".startswith(f"{name}.") for name in names)
