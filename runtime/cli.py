"""``dmf-bench``: measure packages on this host, and count their instructions on an emulated ARM64 CPU."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime import commandline
from runtime.arm64.setup import CPUS
from runtime.documents import check_writable
from runtime.errors import UsageError
from runtime.instructions import InstructionResults, count, write_counts
from runtime.manifest import Package, open_package
from runtime.measure import DEVICES, Results, compare, measure, write_results
from runtime.report import comparison_text, instructions_text, latency_text

PROG = "dmf-bench"
EPILOG = """\
example:
  dmf-bench build/dmf_s-onnx --against build/dmf_s-tflite --json out.json
  dmf-bench build/dmf_s-tflite --on arm64 --count instructions --cpu cortex-a53

exit codes: 0 measured, 2 wrong arguments or an altered package, 5 the runtime or the emulation failed,
130 interrupted"""
OF_LATENCY = ("threads", "warmup", "repeats", "against")


def build_parser() -> commandline.ArgumentParser:
    """The command's arguments."""
    parser = commandline.ArgumentParser(
        prog=PROG,
        description="Measure latency and memory of exported packages, each in its own process, "
        "or count the ARM64 instructions of one inference.",
        epilog=EPILOG,
    )
    parser.add_argument("packages", nargs="+", metavar="PACKAGE", help="a folder dmf-export wrote")
    parser.add_argument(
        "--on",
        choices=(*DEVICES, "arm64"),
        default="host",
        help="this host, or an emulated ARM64 CPU, which counts but measures no time (default: host)",
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
    parser.add_argument("--threads", type=commandline.whole_number(1), default=1, metavar="N", help="default: 1")
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
        "--against",
        metavar="OTHER",
        help="compare each PACKAGE with OTHER, the two measured in alternation",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the raw samples and conditions too; - is stdout, without the table",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dmf-bench`` and return its exit code."""
    return commandline.run(PROG, _bench, argv)


def _bench(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    _check(arguments, parser)
    if arguments.json not in (None, "-"):
        check_writable(Path(arguments.json))
    packages = [open_package(path) for path in arguments.packages]
    against = open_package(arguments.against) if arguments.against else None
    progress = commandline.Progress(quiet=arguments.quiet)
    if arguments.count:
        _count(packages, arguments, progress)
    else:
        _measure(packages, against, arguments, progress)
    return 0


def _check(arguments: Any, parser: commandline.ArgumentParser) -> None:
    """UsageError for what does not go together: time is measured on the host, instructions are counted on ARM64."""
    if arguments.on == "arm64" and not arguments.count:
        raise UsageError(
            "--on arm64 is an emulator, and its time is not latency; give --count instructions, or measure --on host"
        )
    if arguments.on == "host" and (arguments.count or arguments.cpu):
        flag = "--count" if arguments.count else "--cpu"
        raise UsageError(f"{flag} is for an emulated CPU, not for host; give --on arm64 --count instructions")
    if arguments.count:
        given = [name for name in OF_LATENCY if getattr(arguments, name) != parser.get_default(name)]
        if given:
            raise UsageError(f"--{given[0]} is of latency; --count instructions counts one inference on one thread")


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


def _measure(
    packages: Sequence[Package], against: Package | None, arguments: Any, progress: commandline.Progress
) -> None:
    options = {name: getattr(arguments, name) for name in ("on", "threads", "warmup", "repeats")}
    reports, comparisons = [], []
    for package in packages:
        name = package.manifest.name
        if against is None:
            with progress.stage(f"measure {name}"):
                reports.append(measure(package, **options))
        else:
            with progress.stage(f"compare {name} with {against.manifest.name}"):
                comparisons.append(compare(package, against, **options))

    results = Results(reports=tuple(reports), comparisons=tuple(comparisons))
    if arguments.json == "-":
        print(results.render(), end="")
        return
    pairs = [report for each in comparisons for report in (each.package, each.against)]
    print(latency_text([*reports, *pairs]))
    for comparison in comparisons:
        print(comparison_text(comparison))
    if arguments.json:
        write_results(arguments.json, results)


if __name__ == "__main__":
    sys.exit(main())
