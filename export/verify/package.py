"""A package proven again, from nothing but itself."""

import numpy as np

from export.verify.artifact import verify_artifact
from export.verify.inputs import Inputs
from export.verify.parity import Verdict
from export.verify.reference import Reference
from runtime.errors import UsageError
from runtime.golden import read_golden
from runtime.manifest import Package


def verify_package(package: Package, cpu: str | None = None) -> Verdict:
    """Judge the artifact by its golden vectors and the manifest's yardsticks, here or on an emulated ARM64 `cpu`.

    Raises as `verify_artifact` does.
    """
    manifest = package.manifest
    if package.golden is None:
        raise UsageError(f"{package.path} has no golden vectors; export it again")
    golden = read_golden(package.golden)
    reference = Reference(
        Inputs(golden.images, golden.names),
        golden.logits,
        np.array([each.yardstick_abs_error for each in manifest.parity.outputs[0].per_input]),
        golden.frozen_logits,
    )
    return verify_artifact(
        manifest.format,
        package.artifact,
        manifest.inputs[0],
        reference,
        manifest.parity.tolerance,
        manifest.parity.oracle,
        cpu,
    )


def largest_difference(verdict: Verdict, other: Verdict) -> float:
    """Between the logits of one package that was run in two places; 1e30 where one of them isn't finite."""
    difference = np.abs(verdict.logits - other.logits)
    return float(np.where(np.isfinite(difference), difference, 1e30).max())
