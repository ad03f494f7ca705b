"""``dmf-export``: a checkpoint becomes packages, each proven."""

import argparse
import copy
import json
import os
import platform
import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

import dmf
from dmf.detection import DETECTORS, create_detector
from export import convert, lowering, target
from export.delegates.forecast import Forecast, forecast, outcome, with_alternatives
from export.destination import check_destination
from export.model import MODELS, Model, create, image_size, load, static_graph
from export.package import LABELS_NAME
from export.pipeline import Prepared, prepare, sensitivities, write_package
from export.plan import IOS, Plan, make_plan
from export.precision import PRECISIONS
from export.provenance import Origin
from export.quantize import sensitivity
from export.quantize.budget import Budget
from export.quantize.calibration import find_calibration
from export.tuning import tuned
from runtime import commandline
from runtime.errors import UsageError
from runtime.latency import LatencyReport
from runtime.manifest import Package
from runtime.measure import measure

PROG = "dmf-export"
UNFORESEEN = "what suppresses, and all that is behind the backbone of a Mask R-CNN, is not forecast"
EPILOG = """\
examples:
  dmf-export --format tflite
  dmf-export --model dmf_s --checkpoint s.safetensors --format all --out build/
  dmf-export --model dmf_nano --format coreml --image-input --labels names.txt
  dmf-export --format coreml --image-size 224 192 160
  dmf-export --model retinanet_dmf_s --image-size 320x512 --format tflite --nms
  dmf-export --format tflite --target nnapi --dry-run
  dmf-export --model dmf_nano --format onnx --lowering auto --on arm64

exit codes: 0 done and proven, 2 wrong arguments, 3 a converter failed (its log is named),
4 parity failed (nothing is packaged; see rejected/), 5 the runtime failed, 130 interrupted"""


def build_parser() -> commandline.ArgumentParser:
    """The command's arguments."""
    parser = commandline.ArgumentParser(
        prog=PROG,
        description="Export a Dynamic Mobile-Former to ONNX, Core ML or TFLite, and prove it equal to PyTorch.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("--format", choices=[*convert.FORMATS, "all"], help="what to write (required, unless --target says it)")
    add("--model", choices=list(MODELS), metavar="NAME", default="dmf_xxs", help="of --list (default: dmf_xxs)")
    add("--checkpoint", metavar="FILE", help="default: the one that comes with the model, else seeded random weights")
    add("--seed", type=commandline.whole_number(0), metavar="N", help="seeded random weights, whatever comes with it")
    add(
        "--image-size",
        type=size,
        nargs="+",
        default=[],
        metavar="PX",
        help="side of a square input, or of a detector's HEIGHTxWIDTH, too (default: the model's); Core ML: several "
        "of a classifier, which share the weights",
    )
    add("--out", default="build", metavar="DIR", help="where packages go (default: build)")
    add("--overwrite", action="store_true", help="replace packages that exist")
    add("--target", choices=list(target.TARGETS), help="what will run the artifact; picks the lowering")
    add(
        "--lowering",
        choices=[*lowering.NAMES, lowering.AUTO],
        help="pointwise/depthwise form, instead of the target's; auto: measure, and take the fastest in each block",
    )
    add(
        "--on",
        choices=["host", "arm64"],
        help="with --lowering auto: time on this host (default), or instructions on an emulated ARM64 CPU",
    )
    add(
        "--threads",
        type=commandline.whole_number(1),
        metavar="N",
        help="with --lowering auto: of the runtime that is measured (default: 1)",
    )
    tflite = [name for name, c in convert.CONVERTERS.items() if c.format == "tflite"]
    add("--tflite-converter", choices=tflite, default=convert.FORMATS["tflite"], help="default: %(default)s")
    add(
        "--precision",
        choices=list(PRECISIONS),
        help="of weights: fp32, fp16 or int8 (w8); w8a8: of activations, too (default: fp32; Core ML: fp16)",
    )
    add(
        "--keep-fp32",
        action="append",
        default=[],
        metavar="MODULE",
        help="leave this module in float32, by its PyTorch name; may be repeated",
    )
    add(
        "--calibration",
        metavar="DIR",
        help="pictures: 100 or more for the ranges of w8a8; what --sensitivity and budgets are measured on "
        "(default: dmf_nano's digits)",
    )
    add(
        "--sensitivity",
        action="store_true",
        help="instead of an export: which modules suffer most from the precision (default: w8), as a table and a plot",
    )
    add(
        "--budget-mb",
        type=commandline.positive,
        metavar="MB",
        help="choose w8, fp16 or fp32 for each module: the best artifact of at most this size",
    )
    add(
        "--budget-db",
        type=commandline.positive,
        metavar="DB",
        help="the same: the smallest artifact whose logits have at least this PSNR",
    )
    add(
        "--batch",
        type=commandline.whole_number(1),
        nargs="+",
        default=[1],
        metavar="N",
        help="images per inference (default: 1); Core ML: several, any of which it then takes",
    )
    add("--dynamic-batch", action="store_true", help="ONNX: any number of images per inference")
    add("--input-layout", choices=["NCHW", "NHWC"], help="default: NHWC for TFLite, else NCHW")
    add("--image-input", action="store_true", help="Core ML: take an image and normalise it in the graph")
    add("--ios", type=int, choices=IOS, help="Core ML: the oldest iOS that is to run it (default: 17)")
    add("--nms", action="store_true", help="a detector: suppress in the graph, by what the format has for it")
    add("--labels", metavar="FILE", help="class names, one a line; Core ML with --image-input, or --nms, has them")
    add(
        "--dry-run",
        action="store_true",
        help="say what would be done, and what would fall off the target",
    )
    add("--list", action="store_true", help="models, formats, converters, targets, lowerings; then exit")
    add("--json", action="store_true", help="JSON on stdout instead of tables: manifests and latencies, or the dry run")
    add("--quiet", action="store_true", help="no progress on stderr")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dmf-export`` and return its exit code."""
    return commandline.run(PROG, _export, argv)


def _export(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.list:
        print_list()
        return 0
    if arguments.format is None and arguments.target:
        arguments.format = target.TARGETS[arguments.target].format
    if arguments.format is None:
        raise UsageError(f"--format is required; choose from {', '.join([*convert.FORMATS, 'all'])}")
    if arguments.format == "all" and (arguments.target or arguments.lowering):
        raise UsageError("--target and --lowering are for one format; give it instead of --format all")
    if arguments.sensitivity and arguments.format == "all":
        raise UsageError("--sensitivity is of one format's graph; give it instead of --format all")
    if arguments.sensitivity and (arguments.budget_mb is not None or arguments.budget_db is not None):
        raise UsageError("--sensitivity is of one precision, a budget chooses between them; give one of the two")
    if arguments.sensitivity and arguments.precision in ("fp32", "w8a8"):
        raise UsageError(f"--sensitivity is of weights, not {arguments.precision}; give --precision fp16 or w8")
    if arguments.sensitivity and arguments.precision is None:
        arguments.precision = "w8"
    if arguments.dynamic_batch and arguments.batch != [1]:
        batch = " ".join(map(str, arguments.batch))
        raise UsageError(f"--dynamic-batch takes any number of images, --batch {batch} only that; give one")
    if arguments.budget_mb is not None and arguments.budget_db is not None:
        raise UsageError("--budget-mb and --budget-db are two ways to say it; give one")
    progress, out = commandline.Progress(quiet=arguments.quiet), Path(arguments.out)
    if arguments.sensitivity and arguments.model in DETECTORS:
        raise UsageError(f"--sensitivity is of logits, and {arguments.model} is a detector; give a classifier")
    model, origin = load_model(arguments.model, arguments.checkpoint, arguments.seed, *arguments.image_size[:1])
    plans = plan_formats(model, origin, arguments)
    for plan in () if arguments.dry_run or arguments.sensitivity else plans:
        check_destination(out, plan.name, arguments.overwrite)
    if arguments.checkpoint is None and not arguments.quiet:
        weights = origin.path or f"seeded random weights (seed {origin.seed})"
        print(f"no --checkpoint: {arguments.model} has {weights}", file=sys.stderr)
    calibration = next((plan.calibration for plan in plans if plan.precision == "w8a8"), None)  # one for all formats
    if calibration is not None and calibration.warning is not None:
        progress.say(calibration.warning)
    if arguments.dry_run and arguments.lowering == lowering.AUTO:
        raise UsageError(f"--lowering {lowering.AUTO} measures, a dry run does not; name a lowering")
    if arguments.dry_run:
        return dry_run(plans, model, out, arguments.json, progress)
    if arguments.sensitivity:
        assert isinstance(model, dmf.DMF)
        pictures = find_calibration(arguments.calibration and Path(arguments.calibration), model.config)
        plan, prepared = replace(plans[0], calibration=pictures), prepare(model, origin, progress)
        return print_sensitivity(plan, prepared, out, arguments.json, progress)
    prepared = prepare(model, origin, progress)
    plans = [tuned(plan, prepared.graph, image_size(model), progress) for plan in plans]
    packages = [write_package(plan, prepared, out, arguments.overwrite, progress) for plan in plans]
    every = [function for package in packages for function in package.functions]
    latencies = measure_here(every, progress)
    if arguments.json:
        print(
            json.dumps(
                [as_json(package, latencies[package.functions[0].manifest.name]) for package in packages], indent=2
            )
        )
    else:
        table = results_table(every, latencies)
        width = Console(width=1000).measure(table).maximum  # no figure is cut off, even if lines wrap
        Console(width=width).print(table)
        for plan, package in zip(plans, packages, strict=True):
            if plan.detection is not None and plan.detection.form != "dense":  # more than what was forecast
                continue
            expected = forecast(plan, prepared.graph, image_size(model))
            if (found := outcome(expected, package.artifact)) is not None:
                print(f"{plan.name}: {found.describe(expected.delegate)}")
        print_left(packages)
        print_next(packages)
    return 0


def dry_run(plans: Sequence[Plan], model: Model, out: Path, as_json: bool, progress: commandline.Progress) -> int:
    """Print what an export would do, and what of its result the target's delegate would refuse."""
    with progress.stage("forecast: the operations, without data"):
        graph = static_graph(copy.deepcopy(model).float().eval())
        size = image_size(model)
        forecasts = [with_alternatives(forecast(plan, graph, size), graph, size) for plan in plans]
    if as_json:
        print(json.dumps([each.to_json() | {"package": str(out / each.plan.name)} for each in forecasts], indent=2))
        return 0
    for each in forecasts:
        print_forecast(each, out)
    return 0


def print_sensitivity(plan: Plan, prepared: Prepared, out: Path, as_json: bool, progress: commandline.Progress) -> int:
    """Rank the modules by what fewer bits for their weights do to the logits; the plot goes to `out`."""
    damages = sensitivities(plan, prepared, plan.precision, progress)
    out.mkdir(parents=True, exist_ok=True)
    picture = out / f"{plan.name}-sensitivity.png"
    sensitivity.draw(damages, f"{plan.variant}: weights in {plan.precision}, one module at a time", picture)
    if as_json:
        print(json.dumps([asdict(damage) | {"psnr_db": damage.psnr_db} for damage in damages], indent=2))
    else:
        print(sensitivity.table(damages))
        print(f"plot: {picture}")
    return 0


def print_forecast(expected: Forecast, out: Path) -> None:
    """A plan, a table of what falls off, and the rules with their sources."""
    console, plan, delegate = Console(), expected.plan, expected.delegate
    batches = plan.batches or ("any" if plan.batch == -1 else plan.batch,)
    batch = " or ".join(map(str, batches))
    sizes = f", input sides {', '.join(map(str, plan.sizes))} px; what follows is of the first" * bool(plan.sizes)
    lines = [
        f"would write {out / plan.name}",
        f"  {plan.variant} to {plan.converter.format} by {plan.converter.name}: {plan.precision}, batch {batch}, "
        f"input {plan.input_layout}{sizes}",
        f"  for {plan.target.name}, lowering {plan.lowering}: {plan.lowering.reason}",
        f"  {expected.summary} ({delegate.checked})",
        *([f"  note: {delegate.note}"] if delegate.note else []),
        *([f"  note: {UNFORESEEN}"] if plan.detection is not None and plan.detection.form != "dense" else []),
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    rules = list(dict.fromkeys(row.rule for row in expected.rows))
    if rules:
        table = Table("module", "operation", "rule", box=box.SIMPLE, pad_edge=False)
        for row in expected.rows:
            operation = row.operation if row.count == 1 else f"{row.count} x {row.operation}"
            table.add_row(row.module, operation, str(rules.index(row.rule) + 1))
        console.print(table)
    for number, rule in enumerate(rules, 1):
        names = expected.avoided_by.get(rule, ())
        lines = [
            f"  {number}. {rule.reason}{'; nothing at all runs on it then' if rule.stops else ''}",
            f"     avoided by {' or '.join(f'--lowering {name}' for name in names) or 'no lowering'}",
            f"     source: {rule.source}",
        ]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def load_model(
    name: str, checkpoint: str | Path | None, seed: int | None, size: tuple[int, int] | None = None
) -> tuple[Model, Origin]:
    """The model to export, and where its weights came from. Raises `UsageError`."""
    if checkpoint is not None and seed is not None:
        raise UsageError(f"--seed {seed} is of random weights, but there is --checkpoint {checkpoint}; give one")
    if seed is not None and seed >= 2**64:
        raise UsageError(f"--seed is {seed}; it must be below 2**64")
    if checkpoint is None and seed is None:
        checkpoint = dmf.pretrained(name)
    try:
        if checkpoint is None:
            return create(name, seed or 0, size), Origin(seed=seed or 0)
        return load(checkpoint, name, size), Origin(path=Path(checkpoint))
    except ValueError as error:
        raise UsageError(str(error)) from error


def size(text: str) -> tuple[int, int]:
    """A parser for ``type=`` that takes a side, or HEIGHTxWIDTH."""
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not a side in px, as 320, or HEIGHTxWIDTH, as 320x512")
    return int(sides[0]), int(sides[-1])


def plan_formats(model: Model, origin: Origin, arguments: Namespace) -> list[Plan]:
    """One plan per requested format. Options that only one format has are given to that one."""
    formats = list(convert.FORMATS) if arguments.format == "all" else [arguments.format]
    everywhere = arguments.format != "all"
    labels = origin.classes if arguments.labels is None else read_labels(Path(arguments.labels))
    return [
        make_plan(
            model,
            format,
            converter=arguments.tflite_converter if format == "tflite" else None,
            target=arguments.target,
            lowering=arguments.lowering,
            on=arguments.on,
            threads=arguments.threads,
            precision=arguments.precision,
            keep_fp32=tuple(arguments.keep_fp32),
            calibration=None if arguments.sensitivity else arguments.calibration,
            budget=budget_of(arguments),
            batch=batch_of(arguments, format),
            sizes=others(arguments.image_size) if everywhere or format == "coreml" else (),
            input_layout=arguments.input_layout,
            image_input=arguments.image_input and (everywhere or format == "coreml"),
            ios=arguments.ios if everywhere or format == "coreml" else None,
            labels=labels,
            nms=arguments.nms,
        )
        for format in formats
    ]


def others(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """The sides of all but the first. Raises `UsageError`."""
    if not_square := next((each for each in sizes[1:] if each[0] != each[1]), None):
        height, width = not_square
        raise UsageError(f"image size {height}x{width}: several sizes are for classifiers, and square; give one size")
    return [side for side, _ in sizes[1:]]


def batch_of(arguments: Namespace, format: str) -> int | list[int]:
    """-1 for any; several where the format has that, or no other is asked for."""
    alone = arguments.format != "all"
    if arguments.dynamic_batch and (alone or format == "onnx"):
        return -1
    batch: list[int] = arguments.batch
    return batch if alone or format == "coreml" else batch[0]


def budget_of(arguments: Namespace) -> Budget | None:
    if arguments.budget_mb is None and arguments.budget_db is None:
        return None
    return Budget(arguments.budget_mb, arguments.budget_db)


def read_labels(path: Path) -> tuple[str, ...]:
    """One name per line. Raises `UsageError`."""
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: can't be read as {LABELS_NAME}: {error}") from error


def measure_here(packages: Sequence[Package], progress: commandline.Progress) -> dict[str, LatencyReport | None]:
    """A short measurement of each package that this host runs; None for the others."""
    latencies: dict[str, LatencyReport | None] = {}
    for package in packages:
        name = package.manifest.name
        latencies[name] = None
        if runs_here(package):
            with progress.stage(f"{name}: measure"):
                latencies[name] = measure(package, repeats=50)
    return latencies


def results_table(packages: Sequence[Package], latencies: dict[str, LatencyReport | None]) -> Table:
    """One row per package: parity, size, latency."""
    table = Table(title="proven equal to PyTorch", title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("package", no_wrap=True)
    is_detector = any(package.manifest.detection is not None for package in packages)
    for header in ("max error", "allowed", "PSNR dB", "objects" if is_detector else "top-1", "MB", "p50 ms"):
        table.add_column(header, justify="right", no_wrap=True)
    for package in packages:
        output, report = package.manifest.parity.outputs[0], latencies[package.manifest.name]
        table.add_row(
            package.manifest.name,
            f"{output.max_abs_error:.1e}",
            f"{output.budget_max_abs_error:.1e}",
            "exact" if output.psnr_db is None else f"{output.psnr_db:.1f}",
            agreement(package),
            f"{size_bytes(package) / 1e6:.1f}",
            f"{report.p50_ms:.2f}" if report else "on Apple only",
        )
    return table


def agreement(package: Package) -> str:
    """The share of the inputs with the same top-1 class, or of a detector the objects that match."""
    parity = package.manifest.parity
    if (found := parity.detections) is not None:
        return f"{found.matched} of {found.found}, {found.decided} decided"
    share = parity.outputs[0].top1_agreement
    return f"{share:.0%}" if share is not None else "-"


def size_bytes(package: Package) -> int:
    """Of the artifact, without golden vectors and labels."""
    return sum(file.size_bytes for file in package.manifest.files if file.role == "artifact")


def as_json(package: Package, report: LatencyReport | None) -> dict[str, object]:
    return {
        "package": str(package.path),
        "manifest": package.manifest.to_json(),
        "p50_ms": report.p50_ms if report else None,
    }


def print_left(packages: Sequence[Package]) -> None:
    """The modules that differ from the precision that was asked for, and why."""
    for manifest in (package.manifest for package in packages):
        for each in () if manifest.quantization is None else manifest.quantization.stored:
            names = ", ".join(each.modules[:3]) + (", ..." if len(each.modules) > 3 else "")
            print(f"{manifest.name}: {len(each.modules)} modules in {each.precision} ({names}): {each.reason}")


def print_next(packages: Sequence[Package]) -> None:
    """What to run next, ready to copy."""
    for package in packages:
        for line in package.manifest.unchecked:
            print(f"unchecked: {line}")
    paths = [shlex.quote(str(package.path)) for package in packages]
    here = [path for path, p in zip(paths, packages, strict=True) if runs_here(p)]
    print("\nnext:")
    print(" ", command("dmf-verify"), *paths)
    if here:
        print(" ", command("dmf-bench"), *here)
    one = packages[0].manifest
    variant, format = (one.model.variant, one.format) if one.detection is not None else ("dmf_xxs", "all")
    print(" ", command(PROG), f"--checkpoint YOUR.safetensors --model {variant} --format {format} --out build/mine")


def command(name: str) -> str:
    """How to call one of this project's commands: by name if it is on the path, else by where it lies."""
    beside = Path(sys.argv[0]).with_name(name)
    return name if shutil.which(name) or not beside.is_file() else shlex.quote(os.path.relpath(beside))


def runs_here(package: Package) -> bool:
    """Whether this host has a runtime for the package's format."""
    return package.manifest.format != "coreml" or platform.system() == "Darwin"


def print_list() -> None:
    """Everything that can be named on the command line."""
    console = Console()
    models = Table("model", "input", "parameters", title="models", title_justify="left")
    with torch.device("meta"):
        everything: list[Model] = [dmf.create_model(name) for name in dmf.VARIANTS]
        everything += [create_detector(name) for name in DETECTORS]
    for name, model in zip(MODELS, everything, strict=True):
        height, width = image_size(model)
        models.add_row(name, f"{height} x {width}", f"{sum(p.numel() for p in model.parameters()):,}")
    formats = Table("format", "converter", "input", title="formats", title_justify="left")
    for c in convert.CONVERTERS.values():
        formats.add_row(c.format, c.name, c.input_layout.name)
    targets = Table("target", "format", "lowering", "why", title="targets", title_justify="left")
    targets.add_column("evidence", overflow="fold")
    for t in target.TARGETS.values():
        targets.add_row(t.name, t.format, str(t.lowering), t.lowering.reason, ", ".join(t.evidence))
    for table in (models, formats, targets):
        console.print(table)
    console.print(f"lowerings: {', '.join(lowering.NAMES)}")
    console.print(f"precisions: {', '.join(PRECISIONS)}")


if __name__ == "__main__":
    sys.exit(main())
