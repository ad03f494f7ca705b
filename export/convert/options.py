"""What a converter can be asked for besides the graph."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Options:
    log: Path  # where a converter that runs elsewhere writes what it prints
    metadata: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("logits",)  # names of what the graph returns
    dynamic_batch: bool = False  # ONNX
    batches: tuple[int, ...] = ()  # Core ML: the batch sizes, where there are several
    ios: int = 17  # Core ML: the oldest iOS that is to run it
    in_half: bool = False  # Core ML: compute in fp16
    keep_fp32: tuple[str, ...] = ()  # in fp16: modules of the model that are computed in float32, by name
    mean: tuple[float, float, float] | None = None  # Core ML: an image input, normalised in the graph with these
    std: tuple[float, float, float] | None = None
    labels: tuple[str, ...] | None = None  # Core ML: a classifier that also answers with a label
