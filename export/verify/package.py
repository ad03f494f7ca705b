"""A package proven again, from nothing but itself."""

import numpy as np

from export.verify.artifact import verify_artifact
from export.verify.inputs import Inputs
from export.verify.objects import Objects
from export.verify.parity import Verdict
from export.verify.reference import Output, Reference
from runtime.errors import UsageError
from runtime.golden import Golden, GoldenObjects, read_golden
from runtime.manifest import Manifest, Package


def verify_package(package: Package, cpu: str | None = None) -> Verdict:
    """Judge the artifact by its golden vectors and the manifest's yardsticks, here or on an emulated ARM64 `cpu`.

    Raises as `verify_artifact` does.
    """
    manifest = package.manifest
    if package.golden is None:
        raise UsageError(f"{package.path} has no golden vectors; export it again")
    golden = read_golden(package.golden)
    reference = of_objects(golden, manifest) if isinstance(golden, GoldenObjects) else of_logits(golden, manifest)
    return verify_artifact(
        manifest.format,
        package.artifact,
        manifest.inputs[0],
        reference,
        manifest.parity.tolerance,
        manifest.parity.oracle,
        cpu,
    )


def of_logits(golden: Golden, manifest: Manifest) -> Reference:
    yardsticks = np.array([each.yardstick_abs_error for each in manifest.parity.outputs[0].per_input])
    output = Output("logits", golden.logits, yardsticks, golden.frozen_logits)
    return Reference(Inputs(golden.images, golden.names), (output,))


def of_objects(golden: GoldenObjects, manifest: Manifest) -> Reference:
    """A detector's: sketches of its outputs, and what it finds. `UsageError` for a package that is no detector's."""
    if manifest.detection is None:
        raise UsageError(f"{manifest.name} has a detector's golden vectors, but is none; export it again")
    factor = manifest.parity.tolerance.yardstick_factor
    outputs = zip(golden.outputs, golden.sketches.astype(np.float64), golden.budgets, strict=True)
    return Reference(
        Inputs(golden.images, golden.names),
        tuple(Output(name, values, budgets / factor, sketched=True) for name, values, budgets in outputs),
        Objects(manifest.detection, manifest.inputs[0].crop, golden.expected, golden.score_budgets, golden.iou),
    )


def largest_difference(verdict: Verdict, other: Verdict) -> float | None:
    """Between the outputs of one package that was run in two places; 1e30 where one of them isn't finite.

    None for a detector that suppresses, whose outputs can't be subtracted.
    """
    names = [output.name for output in verdict.parity.outputs]
    differences = [
        np.abs(np.asarray(a, np.float64) - b).max()
        for name in names
        for a, b in zip(verdict.answers[name], other.answers[name], strict=True)
    ]
    return max((float(each) if np.isfinite(each) else 1e30 for each in differences), default=None)
