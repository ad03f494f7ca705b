"""What a run that trains a detector is: its own sections, beside those of every run (config.py)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dmf.detection.config import DETECTORS, DetectorConfig
from dmf.training.config import Section, TrainingConfig, by_title, choice, setting, share, whole
from runtime.commandline import nearest
from runtime.errors import UsageError


@dataclass(frozen=True)
class DetectorModelConfig:
    """A detector's name, the fields of its config in which the trained one differs, and the backbone to begin with.

    `backbone_weights` is a checkpoint's path, or the name of a variant whose checkpoint comes with the package; None
    begins with random weights.
    """

    variant: str
    backbone_weights: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.backbone_weights is None or (isinstance(self.backbone_weights, str) and self.backbone_weights)):
            raise UsageError(f"[model] backbone_weights is {self.backbone_weights!r}; it must be a checkpoint's path")
        if "num_classes" in self.changes:
            raise UsageError("[model] num_classes is the data set's number of classes; leave it out")
        known = [f.name for f in fields(DETECTORS[self.variant]) if f.name not in ("num_classes", "backbone")]
        for name in self.changes:
            if name not in known:
                raise UsageError(
                    f"[model] has no field {name!r}; known: variant, backbone_weights, {', '.join(known)}"
                    f"{nearest(name, known)}"
                )
        if self.backbone_weights is None and (frozen := self.network(1).frozen_stages):
            raise UsageError(
                f"[model] {self.variant} does not train the first {frozen} stages of its backbone, so it needs "
                "backbone_weights; give a checkpoint, or frozen_stages = 0"
            )
        self.network(1)

    def to_table(self) -> dict[str, Any]:
        return {"variant": self.variant, "backbone_weights": self.backbone_weights, **self.changes}

    def network(self, num_classes: int) -> DetectorConfig:
        """The detector's config. Raises `UsageError`."""
        try:
            return replace(DETECTORS[self.variant], **self.changes, num_classes=num_classes)
        except ValueError as error:
            raise UsageError(f"[model] {error}") from error


@dataclass(frozen=True)
class DetectionDataConfig(Section):
    """The pictures: digits pasted on photographs (dmf.detection.digits), or a folder in COCO's layout."""

    title = "data"
    name: str = choice("digit_scenes", "coco")
    path: str | None = setting("the folder that holds annotations/ and the pictures' folders", bool, default=None)
    train: str = setting("a folder's name", bool, default="train2017")  # of COCO's splits
    heldout: str = setting("a folder's name", bool, default="val2017")
    unreadable: str = choice("fail", "skip", default="fail")  # pictures that can't be decoded
    train_scenes: int = whole(1, default=1000)  # digit scenes of an epoch, new ones in each
    heldout_scenes: int = whole(1, default=300)
    heldout_share: float = setting("above 0 and below 1", lambda v: 0 < v < 1, default=0.2)  # of the digits
    split_seed: int = whole(0, default=0)  # of the digits' split and of the scenes: not the run's seed
    workers: int = whole(0, default=0)  # processes that decode, per training process; 0: the training process itself

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.name == "coco") != (self.path is not None):
            raise UsageError(
                "[data] name is 'coco', which needs path"
                if self.path is None
                else f"[data] path is {self.path!r}, but name is {self.name!r}; a path is for name = 'coco'"
            )


@dataclass(frozen=True)
class DetectionAugmentConfig(Section):
    """What is done to a picture; the defaults do nothing. The ratio of its sides is always kept."""

    title = "augment"
    shorter_sides: tuple[int, ...] = setting(  # one is drawn for each training picture; the largest is for evaluation
        "a list of different positive sizes in px", lambda v: min(v, default=1) > 0 and len({*v}) == len(v), default=()
    )
    longer_side: int = setting("a positive size in px", lambda v: v > 0, default=1333)  # at most
    flip: float = share(default=0.0)  # probability


@dataclass(frozen=True)
class DetectionConfig(TrainingConfig):
    """A run that trains a detector."""

    model: DetectorModelConfig
    data: DetectionDataConfig
    augment: DetectionAugmentConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampler.sizes:
            raise UsageError("[sampler] sizes are a classifier's; a detector's are [augment] shorter_sides")
        if self.optimizer.label_smoothing:
            raise UsageError("[optimizer] label_smoothing is a classifier's; leave it out")
        if self.sampler.batch_size // self.sampler.accumulate < 2:
            raise UsageError(
                f"[sampler] batch_size {self.sampler.batch_size} leaves fewer than 2 pictures in a batch, "
                "which batch norm needs"
            )

    @classmethod
    def model_from(cls, variant: str, changes: Mapping[str, Any]) -> DetectorModelConfig:
        rest = dict(changes)
        return DetectorModelConfig(variant, rest.pop("backbone_weights", None), rest)

    @classmethod
    def sections(cls) -> dict[str, type[Section]]:
        return by_title(DetectionDataConfig, DetectionAugmentConfig)
