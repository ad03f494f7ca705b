"""``dmf-verify``: prove packages again from their golden vectors, without the checkpoint."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from export.verify.package import largest_difference, verify_package
from export.verify.parity import Verdict
from runtime import commandline
from runtime.arm64.runner import check_emulated
from runtime.arm64.setup import CPUS, prepare
from runtime.documents import to_json
from runtime.errors import ParityError, UsageError
from runtime.manifest import Package, open_package

PROG = "dmf-verify"
EPILOG = """\
example:
  dmf-verify build/dmf_xxs-onnx build/dmf_xxs-tflite
  dmf-verify build/dmf_xxs-tflite --on arm64 --cpu cortex-a53 max

exit codes: 0 proven, 2 wrong arguments or an altered package, 4 parity failed,
5 the runtime or the emulation failed, 130 interrupted"""


@dataclass(frozen=True, eq=False)
class Judged:
    """A package's verdict on an emulated `cpu`, and how far its logits lie from the host's; both None for the host."""

    verdict: Verdict
    cpu: str | None = None
    max_difference_from_host: float | None = None

    def figures(self) -> dict[str, Any]:
        figures = {"failures": self.verdict.failures, "parity": to_json(self.verdict.parity)}
        return figures if self.cpu is None else {**figures, "max_difference_from_host": self.max_difference_from_host}

    def line(self) -> str:
        parity = self.verdict.parity
        output = parity.outputs[0]
        from_host = "" if self.cpu is None else f", {self.max_difference_from_host:.1e} from the host's"
        return (
            f"{'proven' if parity.passed else 'FAILED'} on {len(parity.inputs)} inputs, "
            f"max error {output.max_abs_error:.1e} of {output.budget_max_abs_error:.1e} allowed{from_host}, "
            f"by {parity.checked_by}"
        )


def build_parser() -> commandline.ArgumentParser:
    """The command's arguments."""
    parser = commandline.ArgumentParser(
        prog=PROG,
        description="Check every file of a package against its manifest, and its outputs against its golden vectors.",
        epilog=EPILOG,
    )
    parser.add_argument("packages", nargs="+", metavar="PACKAGE", help="a folder dmf-export wrote")
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
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dmf-verify`` and return its exit code."""
    return commandline.run(PROG, _verify, argv)


def _verify(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.cpu and arguments.on != "arm64":
        raise UsageError("--cpu is for an emulated CPU, not for host; give --on arm64")
    progress = commandline.Progress(quiet=arguments.quiet)
    packages = [open_package(path) for path in arguments.packages]
    cpus = tuple(dict.fromkeys(arguments.cpu or CPUS)) if arguments.on == "arm64" else ()
    for package, cpu in product(packages, cpus):
        check_emulated(package.manifest.format, package.artifact, cpu)
    if cpus:
        prepare(progress.say)
    judged: dict[str, list[Judged]] = {}
    for package in packages:
        with progress.stage(f"verify {package.manifest.name}"):
            host = verify_package(package)
        judged[str(package.path)] = [_on_arm64(package, cpu, host, progress) for cpu in cpus] or [Judged(host)]
    if arguments.json:
        print(json.dumps({name: _as_json(each) for name, each in judged.items()}, indent=2))
    else:
        for name, each in judged.items():
            print("\n".join(f"{name}: {one.line()}" for one in each))
    failed = [
        f"{name}{f' on {one.cpu}' if one.cpu else ''}: {'; '.join(one.verdict.failures)}"
        for name, each in judged.items()
        for one in each
        if one.verdict.failures
    ]
    if failed:
        raise ParityError(" | ".join(failed))
    return 0


def _on_arm64(package: Package, cpu: str, host: Verdict, progress: commandline.Progress) -> Judged:
    with progress.stage(f"verify {package.manifest.name} on {cpu}"):
        verdict = verify_package(package, cpu)
    return Judged(verdict, cpu, largest_difference(verdict, host))


def _as_json(judged: Sequence[Judged]) -> dict[str, Any]:
    """The figures of the host, or of each CPU under its name."""
    return judged[0].figures() if judged[0].cpu is None else {str(one.cpu): one.figures() for one in judged}


if __name__ == "__main__":
    sys.exit(main())
