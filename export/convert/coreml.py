"""Static graph -> .mlpackage (an ML program) by coremltools. Works on any OS; only Apple's run the result."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.convert.options import Options
from export.scopes import is_within, pytorch_name
from runtime.errors import UsageError

LABEL, PROBABILITIES = "label", "label_probs"  # outputs of a classifier; coremltools derives the second from the first


class _Classifier(nn.Module):
    """Probabilities, which Core ML's classifier output is made of."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).softmax(1)


class _Normalized(nn.Module):
    """Pixels 0..255 in, as an image input gives them; the model's mean and std are applied here.

    Subtract, then multiply: coremltools 9.0 makes a batch norm of a product and a sum, whose epsilon then scales it.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", (255 * torch.tensor(mean, dtype=torch.float64))[:, None, None].float())
        self.register_buffer("scale", (1 / (255 * torch.tensor(std, dtype=torch.float64)))[:, None, None].float())

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) * self.scale)


def convert(graph: nn.Module, example: Tensor, path: Path, options: Options) -> None:
    """Write the .mlpackage folder for inputs like `example`, (B, 3, H, W).

    Raises `UsageError` for a module in `options.keep_fp32` that computes nothing, and what coremltools raises.
    """
    import coremltools as ct
    import numpy as np

    module, shape = graph if options.labels is None else _Classifier(graph), tuple(example.shape)
    if options.mean is None or options.std is None:
        shapes = [(batch, *shape[1:]) for batch in options.batches]
        image = ct.TensorType("image", ct.EnumeratedShapes(shapes) if shapes else shape, np.float32)
    else:
        module = _Normalized(module, options.mean, options.std)
        image = ct.ImageType("image", shape, color_layout=ct.colorlayout.RGB)
    outputs, classifier = [ct.TensorType(name, dtype=np.float32) for name in options.outputs], None
    if options.labels is not None:
        outputs = [ct.TensorType("probabilities", dtype=np.float32)]
        classifier = ct.ClassifierConfig(list(options.labels), LABEL)
    dynamic = ({0: torch.export.Dim("batch", max=max(options.batches))},) if options.batches else None
    program = torch.export.export(module.eval(), (example,), dynamic_shapes=dynamic).run_decompositions({})
    _without_aliases(program)
    (root,) = (name for name, child in module.named_modules() if child is graph)
    model = ct.convert(
        program,
        convert_to="mlprogram",
        inputs=[image],
        outputs=outputs,
        classifier_config=classifier,
        minimum_deployment_target=ct.target[f"iOS{options.ios}"],
        compute_precision=_precision(program, root, options),
        skip_model_load=True,
    )
    spec = model.get_spec() if classifier is None else _with_logits(model.get_spec())
    # made anew, for the model that was converted would save the debug handles beside the program
    model = ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)
    _describe(model, options.metadata)
    model.save(str(path))


def _without_aliases(program: torch.export.ExportedProgram) -> None:
    """A slice of all that there is becomes an alias, which coremltools 9.0 does not know."""
    graph = program.graph
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.alias.default):
        node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)


def join(programs: Mapping[str, Path], path: Path, options: Options) -> None:
    """Write the .mlpackage whose functions these are, by name, the first the default. Equal weights are stored once."""
    import coremltools as ct

    descriptor = ct.utils.MultiFunctionDescriptor()
    for name, program in programs.items():
        descriptor.add_function(str(program), "main", name)
    descriptor.default_function_name = next(iter(programs))
    joined = path.with_name(f"joined-{path.name}")
    ct.utils.save_multifunction(descriptor, str(joined))
    model = ct.models.MLModel(str(joined), skip_model_load=True)
    _describe(model, options.metadata)
    model.save(str(path))
    shutil.rmtree(joined)


def _describe(model: Any, metadata: Mapping[str, str]) -> None:
    model.short_description = metadata.get("description", "")
    for key, value in metadata.items():
        model.user_defined_metadata[key] = value


def _precision(program: torch.export.ExportedProgram, root: str, options: Options) -> Any:
    """Of every operation. A node's debug handle is what coremltools carries through its passes: here, to be kept."""
    import coremltools as ct
    from coremltools.converters.mil.mil.scope import ScopeSource

    if not options.in_half:
        return ct.precision.FLOAT32
    kept = dict.fromkeys(options.keep_fp32, 0)
    for node in program.graph.nodes:
        within = [name for name in kept if is_within(pytorch_name(node, root), [name])]
        node.meta["debug_handle"] = int(bool(within))
        for name in within:
            kept[name] += 1
    for name, nodes in kept.items():
        if not nodes:
            raise UsageError(
                f"no operation of the program is of a module {name!r}; name one that the range audit lists"
            )
    return ct.transform.FP16ComputePrecision(lambda op: 1 not in op.scopes.get(ScopeSource.EXIR_DEBUG_HANDLE, ()))


def _with_logits(spec: Any) -> Any:
    """A classifier that also returns the logits: coremltools 9.0 fails on a classifier of two outputs."""
    import coremltools as ct
    from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType
    from coremltools.proto.MIL_pb2 import DataType

    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    producers = {output.name: operation for operation in block.operations for output in operation.outputs}
    (classify,) = (operation for operation in block.operations if operation.type == "classify")
    softmax = producers[classify.inputs["probabilities"].arguments[0].name]
    while softmax.type == "cast":
        softmax = producers[softmax.inputs["x"].arguments[0].name]
    name = softmax.inputs["x"].arguments[0].name
    (logits,) = (output for output in producers[name].outputs if output.name == name)
    tensor = logits.type.tensorType
    block.outputs.append(name)
    array = spec.description.output.add(name=name).type.multiArrayType
    array.shape.extend(dimension.constant.size for dimension in tensor.dimensions)
    half = tensor.dataType == DataType.FLOAT16
    array.dataType = ArrayFeatureType.FLOAT16 if half else ArrayFeatureType.FLOAT32
    ct.utils.rename_feature(spec, name, "logits")
    return spec
