"""A package proven again, from nothing but itself."""

from export.verify.artifact import open_artifact
from export.verify.inputs import Inputs
from export.verify.parity import Verdict, verify
from export.verify.reference import Reference
from runtime.errors import UsageError
from runtime.golden import read_golden
from runtime.manifest import Package


def verify_package(package: Package) -> Verdict:
    """Judge the artifact by its golden vectors and the manifest's yardstick. Raises `UsageError`, `RunnerError`."""
    manifest = package.manifest
    if package.golden is None:
        raise UsageError(f"{package.path} has no golden vectors; export it again")
    golden = read_golden(package.golden)
    reference = Reference(
        Inputs(golden.images, golden.names),
        golden.logits,
        manifest.parity.outputs[0].yardstick_max_abs_error,
        golden.frozen_logits,
    )
    spec = manifest.inputs[0]
    run, checked_by = open_artifact(manifest.format, package.artifact, spec)
    return verify(run, reference, manifest.precision, checked_by, None if spec.shape[0] == -1 else spec.shape[0])
