"""``dmf-bench``: measure packages."""

import sys
from collections.abc import Sequence
from pathlib import Path

from runtime import commandline
from runtime.documents import check_writable
from runtime.manifest import open_package
from runtime.measure import DEVICES, Results, compare, measure, write_results
from runtime.report import comparison_text, latency_text

PROG = "dmf-bench"
EPILOG = """\
example:
  dmf-bench build/dmf_s-onnx --against build/dmf_s-tflite --json out.json

exit codes: 0 measured, 2 wrong arguments or an altered package, 5 the runtime failed,
130 interrupted"""


def build_parser() -> commandline.ArgumentParser:
    """The command's arguments."""
    parser = commandline.ArgumentParser(
        prog=PROG,
        description="Measure latency and memory of exported packages, each in its own process.",
        epilog=EPILOG,
    )
    parser.add_argument("packages", nargs="+", metavar="PACKAGE", help="a folder dmf-export wrote")
    parser.add_argument("--on", choices=DEVICES, default="host", help="where to measure (default: host)")
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
    arguments = build_parser().parse_args(argv)
    to_stdout = arguments.json == "-"
    if arguments.json and not to_stdout:
        check_writable(Path(arguments.json))
    packages = [open_package(path) for path in arguments.packages]
    against = open_package(arguments.against) if arguments.against else None

    progress = commandline.Progress(quiet=arguments.quiet)
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
    if to_stdout:
        print(results.render(), end="")
        return 0
    pairs = [report for each in comparisons for report in (each.package, each.against)]
    print(latency_text([*reports, *pairs]))
    for comparison in comparisons:
        print(comparison_text(comparison))
    if arguments.json:
        write_results(arguments.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
