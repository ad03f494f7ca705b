"""Artifact against reference: the figures, and the gate that a package must pass.

The yardstick is the eager float32 model's own largest error against float64. For fp32 the budget is 10 yardsticks or
1e-4 of the largest reference value, whichever is larger; top-1 must agree wherever the reference's margin exceeds the
error.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.verify.reference import Logits, Reference
from runtime.manifest import OutputParity, Parity, Tolerance

ORACLE = "eager PyTorch, float64, one sample at a time"
TOLERANCES = {
    "fp32": Tolerance(yardstick_factor=10, relative=1e-4),
    "fp16": Tolerance(yardstick_factor=10, relative=5e-2),  # arithmetic in fp16 as well as weights
}

Run = Callable[[NDArray[np.uint8]], Logits]
"""Images uint8 (N, H, W, 3) -> logits (N, classes), through an artifact."""


@dataclass(frozen=True)
class Verdict:
    """The figures for the manifest, and what failed, in words."""

    parity: Parity
    failures: tuple[str, ...]


def verify(run: Run, reference: Reference, precision: str, checked_by: str, batch: int | None) -> Verdict:
    """Judge an artifact by its logits. `batch` is its fixed batch size, None for any.

    An artifact that takes more than one sample must give each the same logits whichever samples are beside it.
    """
    tolerance, failures = TOLERANCES[precision], []
    images = reference.inputs.images
    logits = run(images)
    output = compare("logits", logits, reference.logits, reference.yardstick, tolerance)
    failures += gate(output)
    if not output.max_abs_error <= output.budget_max_abs_error:
        worst = np.abs(logits - reference.logits).max(1)
        worst = np.where(np.isfinite(worst), worst, np.inf)
        failures.append(f"worst input: {reference.inputs.names[int(worst.argmax())]}")
    not_frozen = routing_follows_input(logits, reference, output.budget_max_abs_error)
    if not_frozen is False:
        failures.append(
            "routing seems frozen: the outputs are nearer to those of a network that routes every sample like the first"
        )
    consistent = None
    if batch != 1:
        order = np.roll(np.arange(len(images)), 1)
        shuffled = run(images[order])
        consistent = bool(np.abs(shuffled - logits[order]).max() <= output.budget_max_abs_error)
        if not consistent:
            failures.append("a batch is not its samples: logits change with the samples beside them")
    parity = Parity(
        oracle=ORACLE,
        passed=not failures,
        tolerance=tolerance,
        outputs=(output,),
        routing_not_frozen=not_frozen,
        batch_consistent=consistent,
        inputs=reference.inputs.names,
        checked_by=checked_by,
    )
    return Verdict(parity, tuple(failures))


def compare(name: str, values: Logits, reference: Logits, yardstick: float, tolerance: Tolerance) -> OutputParity:
    """The figures of one output (N, classes). `ValueError` for another shape."""
    if values.shape != reference.shape:
        raise ValueError(f"{name} is {values.shape}, the reference {reference.shape}")
    peak = float(np.abs(reference).max())
    error = np.where(np.isfinite(values), np.abs(values - reference), 1e30)  # a NaN is as wrong as can be, and JSON
    mean_square = float((error**2).mean())
    ranked = np.sort(reference, 1)
    margins = ranked[:, -1] - ranked[:, -2] if reference.shape[1] > 1 else np.full(len(reference), np.inf)
    agrees = values.argmax(1) == reference.argmax(1)
    decided = margins > error.max(1)
    return OutputParity(
        name=name,
        max_abs_error=float(error.max()),
        max_rel_error=float(error.max() / peak),
        psnr_db=None if mean_square == 0 else float(10 * np.log10(peak**2 / mean_square)),
        top1_agreement=float(agrees[decided].mean()) if decided.any() else 0.0,
        top1_min_margin=float(margins.min()),
        yardstick_max_abs_error=yardstick,
        budget_max_abs_error=max(tolerance.yardstick_factor * yardstick, tolerance.relative * peak),
        reference_max_abs=peak,
    )


def gate(output: OutputParity) -> list[str]:
    """What keeps this output from passing; empty when it passes."""
    failures = []
    if not output.max_abs_error <= output.budget_max_abs_error:
        failures.append(
            f"{output.name}: error {output.max_abs_error:.3g} exceeds the budget {output.budget_max_abs_error:.3g}"
        )
    if output.top1_agreement != 1:
        failures.append(f"{output.name}: another top-1 class although the margin exceeds the error")
    return failures


def routing_follows_input(logits: Logits, reference: Reference, budget: float) -> bool | None:
    """Whether the artifact is nearer to the reference than to one whose routing is frozen at the first sample.

    None where the two can't be told apart: a bank of zeros, a static twin, routing that ignores its input.
    """
    if reference.frozen is None:
        return None
    apart = np.abs(reference.frozen - reference.logits).max(1)
    told = apart > 2 * budget
    if not told.any():
        return None
    to_reference = np.abs(logits - reference.logits).max(1)
    to_frozen = np.abs(logits - reference.frozen).max(1)
    return bool((to_reference[told] < to_frozen[told]).all())
