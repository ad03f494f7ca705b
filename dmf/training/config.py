"""What a training run is: one TOML file, read strictly. Every field states its range; a default means "off"."""

import json
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

from dmf.config import VARIANTS, DMFConfig
from dmf.detection.config import DETECTORS
from runtime.commandline import nearest
from runtime.errors import UsageError

CONFIGS = Path(__file__).parent / "configs"  # the shipped recipes
# where the files lie and how many processes read them: a resumed run may do with others
MOVABLE = frozenset({"data.path", "data.workers", "model.backbone_weights"})


def setting(allowed: str, holds: Callable[[Any], bool], **default: Any) -> Any:
    """A field whose value must satisfy `holds`; `allowed` says the same in words."""
    return field(metadata={"allowed": allowed, "holds": holds}, **default)


def whole(least: int, **default: Any) -> Any:
    return setting(f"a whole number, at least {least}", lambda v: v >= least, **default)


def share(**default: Any) -> Any:
    return setting("a number from 0 to 1", lambda v: 0 <= v <= 1, **default)


def choice(*names: str, **default: Any) -> Any:
    return setting(f"one of {', '.join(names)}", lambda v: v in names, **default)


@dataclass(frozen=True)
class Section:
    """A table of the file. Raises `UsageError` naming field, value and what is allowed."""

    title: ClassVar[str]

    def __post_init__(self) -> None:
        for f in fields(self):
            value, allowed = getattr(self, f.name), f.metadata["allowed"]
            if not is_a(value, f.type) or not (value is None or f.metadata["holds"](value)):
                raise UsageError(f"[{self.title}] {f.name} is {plain(value)!r}; it must be {allowed}")

    @classmethod
    def from_table(cls, values: Mapping[str, Any]) -> Any:
        """A section from a parsed TOML table: lists become tuples; whole numbers may stand for any number."""
        known = {f.name: f for f in fields(cls)}
        for name in values:
            if name not in known:
                raise UsageError(
                    f"[{cls.title}] has no field {name!r}; known: {', '.join(known)}{nearest(name, known)}"
                )
        try:
            return cls(**{name: as_a(value, known[name].type) for name, value in values.items()})
        except TypeError as error:
            raise UsageError(f"[{cls.title}] is incomplete: {str(error).partition('() ')[2]}") from error


@dataclass(frozen=True)
class ModelConfig:
    """A classifier: the variant, and the fields of `DMFConfig` in which the trained model differs from it.

    `num_classes` is none of them: it is the data set's.
    """

    variant: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "num_classes" in self.changes:
            raise UsageError("[model] num_classes is the data set's number of classes; leave it out")
        known_fields = [f.name for f in fields(DMFConfig) if f.name != "num_classes"]
        for name in self.changes:
            if name not in known_fields:
                raise UsageError(
                    f"[model] has no field {name!r}; known: variant, {', '.join(known_fields)}"
                    f"{nearest(name, known_fields)}"
                )
        self.network(1)

    def to_table(self) -> dict[str, Any]:
        return {"variant": self.variant, **self.changes}

    def network(self, num_classes: int) -> DMFConfig:
        """The network's config. Raises `UsageError`."""
        try:
            return replace(VARIANTS[self.variant], **self.changes, num_classes=num_classes)
        except ValueError as error:
            raise UsageError(f"[model] {error}") from error


@dataclass(frozen=True)
class DataConfig(Section):
    """The pictures: scikit-learn's handwritten digits, or a folder with `train/CLASS/*` and `val/CLASS/*`."""

    title = "data"
    name: str = choice("digits", "folder")
    path: str | None = setting("the folder that holds train/ and val/", bool, default=None)
    unreadable: str = choice("fail", "skip", default="fail")  # pictures that can't be decoded
    heldout_share: float = setting(  # of the digits, in every class the same
        "above 0 and below 1", lambda v: 0 < v < 1, default=0.2
    )
    split_seed: int = whole(0, default=0)  # of the digits' split: not the run's seed, so that runs can be compared
    workers: int = whole(0, default=0)  # processes that decode, per training process; 0: the training process itself

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.name == "folder") != (self.path is not None):
            raise UsageError(
                "[data] name is 'folder', which needs path"
                if self.path is None
                else f"[data] path is {self.path!r}, but name is {self.name!r}; a path is for name = 'folder'"
            )


@dataclass(frozen=True)
class AugmentConfig(Section):
    """What is done to a training picture, in this order; the defaults do nothing but resize."""

    title = "augment"
    crop_scale: tuple[float, float] = setting(  # share of the area, smallest and largest
        "two numbers, 0 < smallest <= largest <= 1", lambda v: 0 < v[0] <= v[1] <= 1, default=(1.0, 1.0)
    )
    crop_ratio: tuple[float, float] = setting(  # width by height
        "two numbers, 0 < smallest <= largest", lambda v: 0 < v[0] <= v[1], default=(1.0, 1.0)
    )
    flip: float = share(default=0.0)  # probability, as the two below
    rand_augment_ops: int = whole(0, default=0)  # operations per picture
    rand_augment_magnitude: int = setting("a whole number from 0 to 30", lambda v: 0 <= v <= 30, default=0)
    erase: float = share(default=0.0)
    invert: float = share(default=0.0)  # ink and paper swapped


@dataclass(frozen=True)
class SamplerConfig(Section):
    """Batches, and the sizes they are trained at (the multi-scale sampler).

    `batch_size` is the number of pictures of one optimizer step at the model's `image_size`, over all processes and
    accumulated batches together: the same file gives the same run on one process and on many. Other `sizes` get
    inversely more or fewer pictures.
    """

    title = "sampler"
    batch_size: int = whole(2)
    accumulate: int = whole(1, default=1)  # batches per step; batch norm sees each by itself
    sizes: tuple[int, ...] = setting(
        "a list of different positive sizes in px", lambda v: min(v, default=1) > 0 and len({*v}) == len(v), default=()
    )


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """AdamW and its objective."""

    title = "optimizer"
    lr: float = setting("a positive number", lambda v: v > 0)  # the peak
    weight_decay: float = setting("a number, at least 0", lambda v: v >= 0)  # not of norms, biases and tokens
    betas: tuple[float, float] = setting(
        "two numbers from 0 to below 1", lambda v: all(0 <= b < 1 for b in v), default=(0.9, 0.999)
    )
    clip: float = setting("a number, at least 0", lambda v: v >= 0, default=0.0)  # the gradient's largest norm; 0: any
    label_smoothing: float = setting("at least 0 and below 1", lambda v: 0 <= v < 1, default=0.0)


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """Learning rate and temperature over the epochs; `dmf.training.schedule` has the formulas."""

    title = "schedule"
    epochs: int = whole(1)
    warmup_epochs: float = setting("a number, at least 0", lambda v: v >= 0, default=0.0)
    final_lr: float = setting("a number, at least 0", lambda v: v >= 0, default=0.0)
    temperature: float = setting("a number, at least 1", lambda v: v >= 1, default=1.0)  # of the first epoch
    temperature_epochs: int = whole(0, default=0)  # until it is 1
    milestones: tuple[int, ...] = setting(  # epochs after each of which the rate falls to a tenth; none: half a cosine
        "a list of increasing whole numbers, each at least 1",
        lambda v: min(v, default=1) > 0 and list(v) == sorted({*v}),
        default=(),
    )


@dataclass(frozen=True)
class EMAConfig(Section):
    """The moving average of the weights, which is what is evaluated and kept."""

    title = "ema"
    decay: float = setting("at least 0 and below 1", lambda v: 0 <= v < 1)
    ramp: bool = setting("true or false", lambda _: True, default=False)  # min(decay, (1 + n) / (10 + n)) at update n


@dataclass(frozen=True)
class RunConfig(Section):
    """What is left: where randomness starts, and how the run is computed and kept."""

    title = "run"
    seed: int = setting("a whole number from 0 to 2**63 - 1", lambda v: 0 <= v < 2**63, default=0)
    mixed_precision: str = choice("off", "float16", "bfloat16", default="off")  # where there is a GPU
    checkpoint_steps: int = whole(0, default=0)  # between checkpoints; one is written after every epoch in any case


@dataclass(frozen=True)
class TrainingConfig(ABC):
    """A whole run. Raises `UsageError` for sections that contradict each other.

    The first three sections are those of the task: `ClassificationConfig`, or detection_config.py's.
    """

    model: Any
    data: Any
    augment: Any
    sampler: SamplerConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    ema: EMAConfig
    run: RunConfig

    def __post_init__(self) -> None:
        schedule, sampler = self.schedule, self.sampler
        if schedule.warmup_epochs >= schedule.epochs:
            raise UsageError(
                f"[schedule] warmup_epochs is {schedule.warmup_epochs}; it must be below epochs, {schedule.epochs}"
            )
        if schedule.temperature_epochs >= schedule.epochs:
            raise UsageError(
                f"[schedule] temperature_epochs is {schedule.temperature_epochs}; it must be below epochs, "
                f"{schedule.epochs}, so that training ends at temperature 1"
            )
        if (schedule.temperature == 1) != (schedule.temperature_epochs == 0):
            raise UsageError(
                f"[schedule] temperature is {schedule.temperature} for temperature_epochs "
                f"{schedule.temperature_epochs}; annealing needs both, none needs neither"
            )
        if schedule.final_lr > self.optimizer.lr:
            raise UsageError(f"[schedule] final_lr is {schedule.final_lr}; [optimizer] lr is only {self.optimizer.lr}")
        if schedule.milestones and (schedule.final_lr or schedule.milestones[-1] >= schedule.epochs):
            raise UsageError(
                f"[schedule] milestones is {list(schedule.milestones)}; each must be below epochs, {schedule.epochs}, "
                "and final_lr, which is the cosine's, left out"
            )
        if sampler.batch_size % sampler.accumulate:
            raise UsageError(
                f"[sampler] batch_size {sampler.batch_size} can't be split into accumulate = {sampler.accumulate}"
            )

    @classmethod
    @abstractmethod
    def model_from(cls, variant: str, changes: Mapping[str, Any]) -> Any:
        """The section [model]. Raises `UsageError`."""

    @classmethod
    @abstractmethod
    def sections(cls) -> dict[str, type[Section]]:
        """All others, by their titles."""

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "TrainingConfig":
        """From parsed TOML, or what `to_dict` gave; the variant decides on the task. Raises `UsageError`."""
        from dmf.training.detection_config import DetectionConfig  # which derives from this class

        for name, table in values.items():
            if not isinstance(table, Mapping):
                raise UsageError(f"{name} is {table!r}; it must be a section, [{name}]")
        changes = {k: as_a(v, tuple[Any, ...]) for k, v in values.get("model", {}).items()}
        variant, known = changes.pop("variant", None), [*VARIANTS, *DETECTORS]
        if variant is None:
            raise UsageError(f"[model] variant is missing; known: {', '.join(known)}")
        if variant not in known:
            near = nearest(variant, known) if isinstance(variant, str) else ""
            raise UsageError(f"[model] variant is {variant!r}; known: {', '.join(known)}{near}")
        task: type[TrainingConfig] = DetectionConfig if variant in DETECTORS else ClassificationConfig
        sections = task.sections()
        for name in values:
            if name not in ("model", *sections):
                raise UsageError(
                    f"no section [{name}]; known: model, {', '.join(sections)}{nearest(name, ['model', *sections])}"
                )
        model = task.model_from(variant, changes)
        return task(model, **{name: section.from_table(values.get(name, {})) for name, section in sections.items()})

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Section -> field -> value as TOML and JSON can hold it; fields that are None are left out."""
        tables: dict[str, dict[str, Any]] = {"model": self.model.to_table()}
        for name in self.sections():
            section = getattr(self, name)
            tables[name] = {f.name: getattr(section, f.name) for f in fields(section)}
        return {name: {k: plain(v) for k, v in table.items() if v is not None} for name, table in tables.items()}

    def to_toml(self) -> str:
        """The whole config, every field stated; `read` gives it back."""
        return "\n".join(
            f"[{name}]\n" + "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in table.items())
            for name, table in self.to_dict().items()
        )


COMMON: tuple[type[Section], ...] = (SamplerConfig, OptimizerConfig, ScheduleConfig, EMAConfig, RunConfig)


def by_title(*own: type[Section]) -> dict[str, type[Section]]:
    """A task's own sections and those of every task."""
    sections: tuple[type[Section], ...] = (*own, *COMMON)
    return {section.title: section for section in sections}


@dataclass(frozen=True)
class ClassificationConfig(TrainingConfig):
    """A run that trains a classifier."""

    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        sampler, network = self.sampler, self.model.network(1)
        for size in sampler.sizes:
            if size % network.stride:
                raise UsageError(f"[sampler] sizes has {size}; each must be a multiple of {network.stride}")
            if sampler.batch_size / sampler.accumulate * (network.image_size / size) ** 2 < 2:
                raise UsageError(
                    f"[sampler] batch_size {sampler.batch_size} leaves fewer than 2 pictures of {size} x {size} px "
                    "in a batch, which batch norm needs"
                )

    @classmethod
    def model_from(cls, variant: str, changes: Mapping[str, Any]) -> ModelConfig:
        return ModelConfig(variant, changes)

    @classmethod
    def sections(cls) -> dict[str, type[Section]]:
        return by_title(DataConfig, AugmentConfig)


def read(source: str, changes: Sequence[str] = ()) -> TrainingConfig:
    """The config at a path, or the shipped one of that name, with `section.field=value` changes.

    Raises `UsageError`.
    """
    path = Path(source)
    shipped = {p.stem: p for p in sorted(CONFIGS.glob("*.toml"))}
    if not path.is_file():
        if source not in shipped:
            raise UsageError(
                f"{source}: no such file, and no shipped config; "
                f"shipped: {', '.join(shipped)}{nearest(source, shipped)}"
            )
        path = shipped[source]
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from error
    for change in changes:
        name, separator, text = change.partition("=")
        section, _, key = name.strip().partition(".")
        if not (separator and section and key):
            raise UsageError(f"--set {change}: give section.field=value, as in optimizer.lr=1e-3")
        values.setdefault(section, {})[key] = parse_value(text.strip())
    return TrainingConfig.from_dict(values)


def parse_value(text: str) -> Any:
    """A TOML value, or else the text itself, so that strings need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def differences(a: TrainingConfig, b: TrainingConfig) -> list[str]:
    """``"optimizer.lr (0.1, now 0.2)"`` for each field that differs and matters."""
    flat_a, flat_b = ({f"{s}.{k}": v for s, table in c.to_dict().items() for k, v in table.items()} for c in (a, b))
    names = [*flat_a, *(name for name in flat_b if name not in flat_a)]
    return [
        f"{name} ({flat_a.get(name, 'unset')}, now {flat_b.get(name, 'unset')})"
        for name in names
        if flat_a.get(name) != flat_b.get(name) and name not in MOVABLE
    ]


def is_a(value: Any, kind: Any) -> bool:
    """Whether a value has a field's type. bool is no int, and NaN and infinity are no numbers here."""
    if kind == tuple[float, float]:
        return isinstance(value, tuple) and len(value) == 2 and all(is_a(v, float) for v in value)
    if kind == tuple[int, ...]:
        return isinstance(value, tuple) and all(is_a(v, int) for v in value)
    if kind == str | None:
        return value is None or isinstance(value, str)
    return type(value) is kind and (kind is not float or isfinite(value))


def as_a(value: Any, kind: Any) -> Any:
    """TOML's list as a tuple, TOML's whole number as the float that the field wants."""
    if isinstance(value, list):
        entry = float if kind == tuple[float, float] else None
        return tuple(as_a(v, entry) for v in value)
    return float(value) if kind is float and type(value) is int else value


def plain(value: Any) -> Any:
    """Tuples as lists."""
    return list(value) if isinstance(value, tuple) else value
