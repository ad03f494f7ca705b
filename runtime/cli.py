"""``dmf-bench``: measure packages on hosts and phones, and count instructions on an emulated ARM64 CPU."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from runtime import android, commandline, ios
from runtime.arm64.setup import CPUS
from runtime.documents import check_writable
from runtime.errors import RunnerError, UsageError
from runtime.instructions import InstructionResults, count, write_counts
from runtime.latency import ComputeUnits, LatencyReport, Results, write_results
from runtime.manifest import Package, open_package
from runtime.measure import compare, measure
from runtime.report import comparison_text, instructions_text, latency_text

PROG = "dmf-bench"
EPILOG = """\
example:
  dmf-bench build/dmf_s-onnx --against build/dmf_s-tflite --json out.json
  dmf-bench build/retinanet_dmf_s-tflite --post-processing
  dmf-bench build/dmf_s-tflite --on android --accelerators cpu gpu
  dmf-bench build/dmf_s-coreml --on ios --compute-units cpu_only cpu_and_neural_engine
  dmf-bench build/dmf_s-tflite --on arm64 --count instructions --cpu cortex-a53

exit codes: 0 measured, 2 wrong arguments or an altered package, 5 the phone, the runtime or the emulation failed,
130 interrupted"""
PLACES = ("host", "android", "ios", "macos", "arm64")
OPTIONS = {  # where each means something
    "count": ("arm64",),
    "cpu": ("arm64",),
    "threads": ("host", "android"),
    "warmup": ("host", "android", "ios", "macos"),
    "repeats": ("host", "android", "ios", "macos"),
    "against": ("host",),
    "post_processing": ("host", "android", "ios", "macos"),
    "accelerators": ("android",),
    "benchmark_model": ("android",),
    "compute_units": ("ios", "macos"),
    "app": ("ios",),
    "timeout": ("android", "ios", "macos"),
}


def build_parser() -> commandline.ArgumentParser:
    """The command's arguments."""
    parser = commandline.ArgumentParser(
        prog=PROG,
        description="Measure latency and memory of exported packages, each in its own process, on this host or on "
        "phones, or count the ARM64 instructions of one inference.",
        epilog=EPILOG,
    )
    parser.add_argument("packages", nargs="+", metavar="PACKAGE", help="a folder dmf-export wrote")
    parser.add_argument(
        "--on",
        type=place,
        default="host",
        metavar="WHERE",
        help="host; android, the phone that is plugged in, or android:SERIAL, or android:all at once; ios or ios:UDID; "
        "macos, this Mac by Core ML; or arm64, an emulated CPU, which counts but measures no time (default: host)",
    )
    parser.add_argument("--count", choices=("instructions",), help="count these instead of measuring; on arm64 only")
    parser.add_argument(
        "--cpu",
        choices=CPUS,
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"of {', '.join(CPUS)}; on arm64 only (default: all)",
    )
    parser.add_argument(
        "--threads", type=commandline.whole_number(1), default=1, metavar="N", help="on host and android (default: 1)"
    )
    parser.add_argument(
        "--warmup",
        type=commandline.whole_number(0),
        default=10,
        metavar="N",
        help="untimed invokes before the first sample (default: 10)",
    )
    parser.add_argument(
        "--repeats",
        type=commandline.whole_number(1),
        default=100,
        metavar="N",
        help="timed invokes of each package (default: 100)",
    )
    parser.add_argument(
        "--post-processing",
        action="store_true",
        help="a detector: time the choice of its objects, too, where its graph doesn't make it",
    )
    parser.add_argument(
        "--accelerators",
        choices=sorted({name for names in android.ACCELERATORS.values() for name in names}),
        nargs="+",
        action="extend",
        metavar="NAME",
        help="on android: cpu, gpu (tflite), nnapi; each is measured in a process of its own (default: cpu)",
    )
    parser.add_argument(
        "--benchmark-model",
        type=Path,
        metavar="FILE",
        help="on android: LiteRT's benchmark_model for ARM64, used instead of the app; no samples, never valid",
    )
    parser.add_argument(
        "--compute-units",
        choices=get_args(ComputeUnits),
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"on ios and macos: {', '.join(get_args(ComputeUnits))}; each is measured by itself (default: all)",
    )
    parser.add_argument(
        "--app", type=Path, metavar="FILE.app", help="on ios: install this app first, built and signed by Xcode"
    )
    parser.add_argument(
        "--timeout",
        type=commandline.positive,
        default=600.0,
        metavar="S",
        help="on android, ios, macos: seconds that one measurement may take (default: 600)",
    )
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help="compare each PACKAGE with OTHER, the two measured in alternation; on host only",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the raw samples and conditions too; - is stdout, without the table",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


def place(text: str) -> str:
    """A parser for ``type=`` that takes the places, and android or ios with a phone."""
    name, colon, phone = text.partition(":")
    if name not in PLACES or (colon and (name not in ("android", "ios") or not phone)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not one of {', '.join(PLACES)}, android:SERIAL, android:all, ios:UDID"
            f"{commandline.nearest(name, PLACES)}"
        )
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dmf-bench`` and return its exit code."""
    return commandline.run(PROG, _bench, argv)


def _bench(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    _check(arguments, parser)
    if arguments.json not in (None, "-"):
        check_writable(Path(arguments.json))
    packages = [each for path in arguments.packages for each in open_package(path).functions]
    against = open_package(arguments.against) if arguments.against else None
    if against is not None and against.manifest.functions:
        raise UsageError(f"--against {arguments.against} has several input sizes; give a package that has one")
    if arguments.post_processing and all(package.manifest.detection is None for package in packages):
        raise UsageError("--post-processing is of detectors, and none of these packages is one; leave it out")
    progress = commandline.Progress(quiet=arguments.quiet)
    if arguments.count:
        _count(packages, arguments, progress)
    elif arguments.on != "host":
        _measure_on_devices(packages, arguments, progress)
    else:
        _measure(packages, against, arguments, progress)
    return 0


def _check(arguments: Any, parser: commandline.ArgumentParser) -> None:
    """UsageError for an option that means nothing where it is given."""
    where = arguments.on.partition(":")[0]
    if where == "arm64" and not arguments.count:
        raise UsageError(
            "--on arm64 is an emulator, and its time is not latency; give --count instructions, or measure --on host"
        )
    for name, places in OPTIONS.items():
        if where not in places and getattr(arguments, name) != parser.get_default(name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} is for {', '.join(places)}, not for {where}; leave it out, or give another --on")


def _count(packages: Sequence[Package], arguments: Any, progress: commandline.Progress) -> None:
    reports = []
    for cpu in dict.fromkeys(arguments.cpu or CPUS):
        with progress.stage(f"count {', '.join(package.manifest.name for package in packages)} on {cpu}"):
            reports += count(packages, cpu, say=progress.say)
    results = InstructionResults(reports=tuple(reports))
    if arguments.json == "-":
        print(results.render(), end="")
        return
    print(instructions_text(reports))
    if arguments.json:
        write_counts(arguments.json, results)


def _measure_on_devices(packages: Sequence[Package], arguments: Any, progress: commandline.Progress) -> None:
    where, _, select = arguments.on.partition(":")
    warmup, repeats, timeout_s = arguments.warmup, arguments.repeats, arguments.timeout
    errors: list[RunnerError] = []
    with progress.stage(f"measure {', '.join(package.manifest.name for package in packages)} on {arguments.on}"):
        if where == "android":
            accelerators = tuple(dict.fromkeys(arguments.accelerators or ("cpu",)))
            how = android.Measurement(
                arguments.threads,
                warmup,
                repeats,
                accelerators,
                arguments.benchmark_model,
                timeout_s,
                arguments.post_processing,
            )
            reports, errors = android.measure_on_phones(packages, select or None, how, progress.say)
        else:
            units = tuple(dict.fromkeys(arguments.compute_units or ("all",)))
            run = ios.Measurement(warmup, repeats, units, arguments.app, timeout_s, arguments.post_processing)
            if where == "ios":
                reports, errors = ios.measure_on_phone(packages, select or None, run, progress.say)
            else:
                reports, errors = ios.measure_on_this_mac(packages, run, progress.say)
    if reports:
        _tell(Results(reports=tuple(reports)), reports, arguments)
    if errors:
        raise RunnerError("; ".join(dict.fromkeys(map(str, errors))))


def _tell(results: Results, reports: Sequence[LatencyReport], arguments: Any) -> None:
    """Print the results, as a table or as JSON, and write them."""
    if arguments.json == "-":
        print(results.render(), end="")
        return
    print(latency_text(reports))
    for comparison in results.comparisons:
        print(comparison_text(comparison))
    if arguments.json:
        write_results(arguments.json, results)


def _measure(
    packages: Sequence[Package], against: Package | None, arguments: Any, progress: commandline.Progress
) -> None:
    options = {name: getattr(arguments, name) for name in ("threads", "warmup", "repeats", "post_processing")}
    reports, comparisons = [], []
    for package in packages:
        name = package.manifest.name
        if against is None:
            with progress.stage(f"measure {name}"):
                reports.append(measure(package, **options))
        else:
            with progress.stage(f"compare {name} with {against.manifest.name}"):
                comparisons.append(compare(package, against, **options))

    pairs = [report for each in comparisons for report in (each.package, each.against)]
    _tell(Results(reports=tuple(reports), comparisons=tuple(comparisons)), [*reports, *pairs], arguments)


if __name__ == "__main__":
    sys.exit(main())
