"""``dmf-verify``: prove packages again from their golden vectors, without the checkpoint."""

import json
import sys
from collections.abc import Sequence

from export.verify.package import verify_package
from runtime import commandline
from runtime.documents import to_json
from runtime.errors import ParityError
from runtime.manifest import open_package

PROG = "dmf-verify"
EPILOG = """\
example:
  dmf-verify build/dmf_xxs-onnx build/dmf_xxs-tflite

exit codes: 0 proven, 2 wrong arguments or an altered package, 4 parity failed,
5 the runtime failed, 130 interrupted"""


def build_parser() -> commandline.ArgumentParser:
    """The command's arguments."""
    parser = commandline.ArgumentParser(
        prog=PROG,
        description="Check every file of a package against its manifest, and its outputs against its golden vectors.",
        epilog=EPILOG,
    )
    parser.add_argument("packages", nargs="+", metavar="PACKAGE", help="a folder dmf-export wrote")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dmf-verify`` and return its exit code."""
    return commandline.run(PROG, _verify, argv)


def _verify(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    progress = commandline.Progress(quiet=arguments.quiet)
    packages = [open_package(path) for path in arguments.packages]
    verdicts = {}
    for package in packages:
        with progress.stage(f"verify {package.manifest.name}"):
            verdicts[str(package.path)] = verify_package(package)
    if arguments.json:
        figures = {
            name: {"failures": verdict.failures, "parity": to_json(verdict.parity)}
            for name, verdict in verdicts.items()
        }
        print(json.dumps(figures, indent=2))
    else:
        for name, verdict in verdicts.items():
            output = verdict.parity.outputs[0]
            print(
                f"{name}: {'proven' if verdict.parity.passed else 'FAILED'} on {len(verdict.parity.inputs)} inputs, "
                f"max error {output.max_abs_error:.1e} of {output.budget_max_abs_error:.1e} allowed, "
                f"by {verdict.parity.checked_by}"
            )
    failed = [f"{name}: {'; '.join(verdict.failures)}" for name, verdict in verdicts.items() if verdict.failures]
    if failed:
        raise ParityError(" | ".join(failed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
