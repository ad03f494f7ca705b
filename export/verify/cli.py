"""``dmf-verify``: prove packages again from their golden vectors, without the checkpoint."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from export.verify import matrix
from export.verify.error_plot import draw
from export.verify.localise import Localisation, localise
from export.verify.package import largest_difference, verify_package
from export.verify.parity import Verdict
from runtime import commandline
from runtime.arm64.runner import check_emulated
from runtime.arm64.setup import CPUS, prepare
from runtime.documents import to_json
from runtime.errors import ParityError, RunnerError, UsageError
from runtime.extras import require
from runtime.manifest import Package, open_package

PROG = "dmf-verify"
EPILOG = """\
example:
  dmf-verify build/dmf_xxs-onnx build/dmf_xxs-tflite
  dmf-verify build/dmf_xxs-tflite --on arm64 --cpu cortex-a53 max
  dmf-verify build/dmf_xxs-tflite --localise --plot errors.png
  dmf-verify --matrix build/matrix --only model=dmf_nano format=onnx,tflite

exit codes: 0 proven, 2 wrong arguments or an altered package, 4 parity failed,
5 the runtime or the emulation failed, 130 interrupted"""


@dataclass(frozen=True, eq=False)
class Judged:
    """A package's verdict on an emulated `cpu`, and how far its outputs lie from the host's; both None for the host.

    `localisation` has its modules' errors, if they were asked for.
    """

    package: str
    verdict: Verdict
    cpu: str | None = None
    max_difference_from_host: float | None = None
    localisation: Localisation | None = None

    @property
    def name(self) -> str:
        return self.package if self.cpu is None else f"{self.package} on {self.cpu}"

    @property
    def failures(self) -> tuple[str, ...]:
        """Of the outputs, and the first module that left its budget."""
        if self.localisation is None or self.localisation.first is None:
            return self.verdict.failures
        return (*self.verdict.failures, self.localisation.summary)

    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = {"failures": self.verdict.failures, "parity": to_json(self.verdict.parity)}
        if self.cpu is not None:
            figures["max_difference_from_host"] = self.max_difference_from_host
        if self.localisation is not None:
            figures["localisation"] = self.localisation.figures()
        return figures

    def text(self) -> str:
        """A line, and a table of the modules."""
        parity = self.verdict.parity
        parts = [f"{self.package}: {'proven' if parity.passed else 'FAILED'} on {len(parity.inputs)} inputs"]
        for output in parity.outputs:
            name = "" if output.name == "logits" else f"{output.name}: "
            error, allowed = f"{output.max_abs_error:.1e}", f"{output.budget_max_abs_error:.1e}"
            parts.append(f"{name}max error {error} of {allowed} allowed")
        if (found := parity.detections) is not None:
            parts.append(
                f"{found.matched} of {found.found} objects found are the reference's ({found.decided} had to be found)"
            )
        if self.max_difference_from_host is not None:
            parts.append(f"{self.max_difference_from_host:.1e} from the host's")
        line = ", ".join([*parts, f"by {parity.checked_by}"])
        return line if self.localisation is None else f"{line}\n{self.localisation.table()}"


def build_parser() -> commandline.ArgumentParser:
    """The command's arguments."""
    parser = commandline.ArgumentParser(
        prog=PROG,
        description="Check every file of a package against its manifest, and its outputs against its golden vectors.",
        epilog=EPILOG,
    )
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="a folder dmf-export wrote")
    parser.add_argument(
        "--on", choices=("host", "arm64"), default="host", help="this host, or an emulated ARM64 CPU (default: host)"
    )
    parser.add_argument(
        "--cpu",
        choices=CPUS,
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"of {', '.join(CPUS)}; on arm64 only (default: all)",
    )
    parser.add_argument(
        "--localise", action="store_true", help="every module's error, and the first module that leaves its budget"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="with --localise: draw the errors by depth, as a PNG")
    parser.add_argument(
        "--matrix",
        type=Path,
        metavar="DIR",
        help="instead of packages: make and judge every artifact on every machine; DIR keeps what is known, and a page",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIMENSION=VALUE,...",
        help="with --matrix: these cells; model, format, converter, lowering, precision or machine",
    )
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dmf-verify`` and return its exit code."""
    return commandline.run(PROG, _verify, argv)


def _verify(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.matrix:
        return _matrix(arguments)
    if arguments.only:
        raise UsageError("--only is for --matrix; give both")
    if not arguments.packages:
        raise UsageError("give a PACKAGE, or --matrix DIR")
    if arguments.cpu and arguments.on != "arm64":
        raise UsageError("--cpu is for an emulated CPU, not for host; give --on arm64")
    if arguments.plot and not arguments.localise:
        raise UsageError("--plot draws what --localise finds; give both")
    if arguments.plot:
        require("matplotlib", extra="train")
    progress = commandline.Progress(quiet=arguments.quiet)
    packages = [each for path in arguments.packages for each in open_package(path).functions]
    cpus = tuple(dict.fromkeys(arguments.cpu or CPUS)) if arguments.on == "arm64" else ()
    for package, cpu in product(packages, cpus):
        check_emulated(package.manifest.format, package.artifact, cpu)
    if cpus:
        prepare(progress.say)
    judged: list[Judged] = []
    for package in packages:
        with progress.stage(f"verify {package.manifest.name}"):
            host = Judged(f"{package.path}{package.suffix}", verify_package(package))
        places = [_on_arm64(package, cpu, host, progress) for cpu in cpus] or [host]
        judged += [_localised(package, place, progress) for place in places] if arguments.localise else places
    if arguments.plot:
        draw({each.name: each.localisation for each in judged if each.localisation}, arguments.plot)
    if arguments.json:
        print(json.dumps(_as_json(judged), indent=2))
    else:
        print("\n".join(each.text() for each in judged))
    if failed := [f"{each.name}: {'; '.join(each.failures)}" for each in judged if each.failures]:
        raise ParityError(" | ".join(failed))
    return 0


def _matrix(arguments: Namespace) -> int:
    if arguments.packages or arguments.on != "host" or arguments.cpu or arguments.localise or arguments.plot:
        raise UsageError("--matrix makes its own packages and names its machines by --only; give it alone")
    found = matrix.run(arguments.matrix, arguments.only, commandline.Progress(quiet=arguments.quiet))
    cells = set(matrix.selected(matrix.every_cell(), arguments.only))
    results = [result for result in found.results if result.cell in cells]
    if arguments.json:
        print(json.dumps(to_json(found), indent=2))
    else:
        Console().print(matrix.table(results))
        print(f"the whole of it: {arguments.matrix / matrix.PAGE_NAME}")
    if faulty := [result for result in results if result.status not in ("proven", "impossible")]:
        first = f"{'/'.join(vars(faulty[0].cell).values())} {faulty[0].status}: {faulty[0].reason}"
        kind = ParityError if any(result.status != "broken" for result in faulty) else RunnerError
        raise kind(f"{len(faulty)} of {len(results)} cells failed; {first}")
    return 0


def _on_arm64(package: Package, cpu: str, host: Judged, progress: commandline.Progress) -> Judged:
    with progress.stage(f"verify {package.manifest.name} on {cpu}"):
        verdict = verify_package(package, cpu)
    return Judged(host.package, verdict, cpu, largest_difference(verdict, host.verdict))


def _localised(package: Package, judged: Judged, progress: commandline.Progress) -> Judged:
    with progress.stage(f"localise {package.manifest.name}{f' on {judged.cpu}' if judged.cpu else ''}"):
        return replace(judged, localisation=localise(package, judged.cpu))


def _as_json(judged: Sequence[Judged]) -> dict[str, Any]:
    """By package the figures of the host, or of each CPU under its name."""
    figures: dict[str, Any] = {}
    for each in judged:
        if each.cpu is None:
            figures[each.package] = each.figures()
        else:
            figures.setdefault(each.package, {})[each.cpu] = each.figures()
    return figures


if __name__ == "__main__":
    sys.exit(main())
