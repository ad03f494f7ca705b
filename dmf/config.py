"""What a Dynamic Mobile-Former is made of: one frozen config, and one table of named variants."""

from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, Literal


@dataclass(frozen=True)
class DMFConfig:
    """The widths and choices of one network (the paper's Table 1, and its ablations).

    Every per-block tuple has one entry per DMF block. Raises `ValueError` for a combination that can't be built.
    """

    # Table 1: widths
    stem_channels: int
    lite_hidden: int
    lite_channels: int
    block_hidden: tuple[int, ...]
    block_channels: tuple[int, ...]
    cross_heads: tuple[int, ...]  # heads of mobile2former; the last is also the end module's
    downsample: tuple[int, ...]  # indices of the blocks that begin with stride 2
    groups: int  # of both 1x1 dynamic convolutions of a block
    ffn_expansion: float  # R of the inverted residual FFN
    end_channels: int  # of the last dynamic 1x1 convolution
    head_hidden: int
    dropout: float

    image_size: int = 224
    num_classes: int = 1000
    num_tokens: int = 6
    token_dim: int = 192
    former_heads: int = 6  # Table 1 prints 8; the released code uses token_dim / 32 = 6, as here
    former_expansion: int = 2
    drop_path: float = 0.1  # stochastic depth, linear from 0 over the blocks and both end modules

    # the dynamic convolution, and its ablations
    num_kernels: int = 8  # K, Table 8
    token_input: bool = True  # Table 3, AFKA; without it: pooled input alone, squeezed by 16
    residual_kernel: bool = True  # Table 3, RCKS; without it: no input-agnostic kernel
    routing: Literal["sigmoid", "softmax"] = "sigmoid"  # Table 6
    bank_init: Literal["zero", "random"] = "zero"  # Table 7
    grn: Literal["channel", "spatial"] = "channel"  # ConvNeXt V2's; "spatial" is the released code's

    def __post_init__(self) -> None:
        self._check_values()
        blocks = len(self.block_hidden)
        if blocks == 0:
            raise ValueError("block_hidden is empty; a network has at least one block")
        for name in ("block_channels", "cross_heads"):
            if len(getattr(self, name)) != blocks:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {blocks} blocks")
        for name, allowed in (
            ("routing", ("sigmoid", "softmax")),
            ("bank_init", ("zero", "random")),
            ("grn", ("channel", "spatial")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if not self.residual_kernel and self.bank_init == "zero":
            raise ValueError("residual_kernel=False needs bank_init='random': nothing else is left of the kernel")
        if self.image_size <= 0 or self.image_size % self.stride:
            raise ValueError(f"image_size is {self.image_size}; it must be a positive multiple of {self.stride}")
        if self.token_dim % self.former_heads:
            raise ValueError(f"token_dim {self.token_dim} is not a multiple of former_heads {self.former_heads}")
        widths = [self.lite_channels, *self.block_channels]
        for width, heads in zip(widths, (*self.cross_heads, self.cross_heads[-1]), strict=True):
            if width % heads:
                raise ValueError(f"{width} channels can't be split into {heads} cross-attention heads")
        for width in (*widths, *self.block_hidden):
            if width % self.groups:
                raise ValueError(f"{width} channels can't be split into {self.groups} groups")
        if list(self.downsample) != sorted({i for i in self.downsample if i < blocks}):
            raise ValueError(f"downsample is {self.downsample}; it must name increasing indices of the {blocks} blocks")

    def _check_values(self) -> None:
        """Type and range of every field by itself: a config may come from a file."""
        for name, kind in ((f.name, f.type) for f in fields(self)):
            value = getattr(self, name)
            least = 0 if name == "downsample" else 1
            if kind is int and (type(value) is not int or value < 1):
                raise ValueError(f"{name} is {value!r}; it must be a positive whole number")
            if kind == tuple[int, ...] and not (
                isinstance(value, tuple) and all(type(v) is int and v >= least for v in value)
            ):
                raise ValueError(f"{name} is {value!r}; it must be a tuple of whole numbers, each at least {least}")
            if kind is bool and type(value) is not bool:
                raise ValueError(f"{name} is {value!r}; it must be True or False")
            if kind is float and (type(value) not in (int, float) or not isfinite(value)):
                raise ValueError(f"{name} is {value!r}; it must be a finite number")
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        if self.ffn_expansion * min(self.block_channels, default=1) < 1:
            raise ValueError(f"ffn_expansion is {self.ffn_expansion}; it leaves no channel in the FFN")

    @property
    def stride(self) -> int:
        """Input pixels per pixel of the last feature map."""
        return 2 ** (1 + len(self.downsample))

    @property
    def feature_blocks(self) -> tuple[int, ...]:
        """Indices of the last block of each stage, whose outputs `DMF.forward_features` returns."""
        return (*(i - 1 for i in self.downsample[1:]), len(self.block_hidden) - 1)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it (tuples become lists)."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DMFConfig":
        """The inverse of `to_dict`. Raises `ValueError` for an unknown or missing field."""
        if not isinstance(values, dict):
            raise ValueError(f"a config is an object of named fields, not {values!r}")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown config field(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        try:
            plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**plain)
        except TypeError as error:
            raise ValueError(f"incomplete config: {error}") from error


VARIANTS: dict[str, DMFConfig] = {
    "dmf_nano": DMFConfig(  # ours: the same structure, small enough for fast tests and the demo
        stem_channels=8,
        lite_hidden=16,
        lite_channels=8,
        block_hidden=(32, 48, 72, 96, 128),
        block_channels=(12, 16, 24, 24, 40),
        cross_heads=(2, 2, 2, 2, 4),
        downsample=(0, 1, 2, 4),
        groups=2,
        ffn_expansion=2,
        end_channels=160,
        head_hidden=128,
        dropout=0.1,
        image_size=64,
        num_classes=10,
        token_dim=64,
        former_heads=2,
    ),
    "dmf_xxs": DMFConfig(
        stem_channels=12,
        lite_hidden=24,
        lite_channels=12,
        block_hidden=(72, 60, 120, 108, 216, 256, 384, 528, 528, 720, 720),
        block_channels=(20, 20, 36, 36, 64, 64, 88, 88, 120, 120, 120),
        cross_heads=(2, 2, 2, 2, 2, 2, 2, 4, 4, 4, 4),
        downsample=(0, 2, 4, 8),
        groups=2,
        ffn_expansion=3,
        end_channels=960,
        head_hidden=1600,
        dropout=0.2,
    ),
    "dmf_xs": DMFConfig(
        stem_channels=16,
        lite_hidden=32,
        lite_channels=18,
        block_hidden=(108, 90, 180, 162, 324, 384, 576, 792, 792, 1080, 1080),
        block_channels=(30, 30, 54, 54, 96, 96, 132, 132, 180, 180, 180),
        cross_heads=(2, 2, 2, 2, 2, 3, 3, 4, 4, 6, 6),
        downsample=(0, 2, 4, 8),
        groups=3,
        ffn_expansion=2,
        end_channels=1152,
        head_hidden=1920,
        dropout=0.3,
    ),
    "dmf_s": DMFConfig(
        stem_channels=24,
        lite_hidden=48,
        lite_channels=24,
        block_hidden=(144, 120, 240, 216, 432, 512, 768, 1056, 1056, 1440, 1440),
        block_channels=(40, 40, 72, 72, 128, 128, 176, 176, 240, 240, 240),
        cross_heads=(2, 2, 2, 2, 2, 4, 4, 4, 4, 8, 8),
        downsample=(0, 2, 4, 8),
        groups=4,
        ffn_expansion=2.7,
        end_channels=1440,
        head_hidden=1920,
        dropout=0.3,
    ),
}
