"""Artifact against reference: the figures, and the gate that a package must pass.

The yardstick is the error against float64 that the eager model has in the artifact's precision: in float32, with its
weights rounded. Each input has its own budget, because a network amplifies rounding more at some inputs than at others:
so many yardsticks of that input, or so much of its largest reference value, whichever is larger. Top-1 must agree
wherever the reference's margin exceeds the error.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from export.precision import Precision
from export.verify.reference import Logits, Reference
from runtime.manifest import InputParity, OutputParity, Parity, Tolerance

ORACLE = "eager PyTorch, float64, one sample at a time"
TWIN_ORACLE = f"{ORACLE}, its kernel banks at zero: the static twin, not the model"
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(yardstick_factor=10, relative=1e-4),
    "fp16": Tolerance(yardstick_factor=2, relative=1e-3),
    "w8": Tolerance(yardstick_factor=2, relative=2e-2),
    "w8a8": Tolerance(yardstick_factor=4, relative=5e-2),
}
HALF = 5e-2  # relative, of an artifact that also computes in fp16, which the yardstick does not


def tolerance_of(precision: Precision, in_half: bool) -> Tolerance:
    """What an artifact of this precision may differ by; `in_half`: it computes in fp16."""
    tolerance = TOLERANCES[precision]
    return replace(tolerance, relative=max(tolerance.relative, HALF)) if in_half else tolerance


Run = Callable[[NDArray[np.uint8]], Logits]
"""Images uint8 (N, H, W, 3) -> logits (N, classes), through an artifact."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """The figures for the manifest, what failed, in words, and the logits (N, classes) that were judged."""

    parity: Parity
    failures: tuple[str, ...]
    logits: Logits


def verify(
    run: Run, reference: Reference, tolerance: Tolerance, checked_by: str, batch: int | None, oracle: str = ORACLE
) -> Verdict:
    """Judge an artifact by its logits. `batch` is its fixed batch size, None for any; `oracle` says what it must equal.

    `ValueError` for logits of another shape.
    """
    images = reference.inputs.images
    logits = run(images)
    output = compare("logits", logits, reference, tolerance)
    failures = gate(output)
    budgets = np.array([each.budget_abs_error for each in output.per_input])
    not_frozen = routing_follows_input(logits, reference, budgets)
    if not_frozen is False:
        failures.append("routing seems frozen: outputs are nearer to those of a network that routes all like the first")
    consistent = None if batch == 1 else batch_is_its_samples(run, images, batch, budgets)
    if consistent is False:
        failures.append("a batch is not its samples: logits change with the samples beside them")
    parity = Parity(
        oracle=oracle,
        passed=not failures,
        tolerance=tolerance,
        outputs=(output,),
        routing_not_frozen=not_frozen,
        batch_consistent=consistent,
        inputs=reference.inputs.names,
        checked_by=checked_by,
    )
    return Verdict(parity, tuple(failures), logits)


def compare(name: str, values: Logits, reference: Reference, tolerance: Tolerance) -> OutputParity:
    """The figures of one output (N, classes). `ValueError` for another shape."""
    expected = reference.logits
    if values.shape != expected.shape:
        raise ValueError(f"{name} is {values.shape}, the reference {expected.shape}")
    peaks = np.abs(expected).max(1)
    error = np.where(np.isfinite(values), np.abs(values - expected), 1e30)  # a NaN is as wrong as can be, and JSON
    budgets = np.maximum(tolerance.yardstick_factor * reference.yardsticks, tolerance.relative * peaks)
    mean_square = float((error**2).mean())
    ranked = np.sort(expected, 1)
    margins = ranked[:, -1] - ranked[:, -2] if expected.shape[1] > 1 else np.zeros(len(expected))
    decided = margins > error.max(1)
    agrees = values.argmax(1) == expected.argmax(1)
    return OutputParity(
        name=name,
        max_abs_error=float(error.max()),
        max_rel_error=float(error.max() / peaks.max()),
        psnr_db=None if mean_square == 0 else float(10 * np.log10(peaks.max() ** 2 / mean_square)),
        top1_agreement=float(agrees[decided].mean()) if decided.any() else None,
        top1_min_margin=float(margins.min()) if expected.shape[1] > 1 else None,
        yardstick_max_abs_error=float(reference.yardsticks.max()),
        budget_max_abs_error=float(budgets.max()),
        reference_max_abs=float(peaks.max()),
        per_input=tuple(
            InputParity(*each)
            for each in zip(
                reference.inputs.names,
                error.max(1).tolist(),
                reference.yardsticks.tolist(),
                budgets.tolist(),
                strict=True,
            )
        ),
    )


def gate(output: OutputParity) -> list[str]:
    """What keeps this output from passing; empty when it passes."""
    failures = [
        f"{output.name} of {each.name}: error {each.max_abs_error:.3g} exceeds the budget {each.budget_abs_error:.3g}"
        for each in output.per_input
        if not each.max_abs_error <= each.budget_abs_error
    ]
    if output.top1_agreement not in (1, None):
        failures.append(f"{output.name}: another top-1 class although the margin exceeds the error")
    return failures


def routing_follows_input(logits: Logits, reference: Reference, budgets: NDArray[np.float64]) -> bool | None:
    """Whether the artifact is nearer to the reference than to one whose routing is frozen at the first sample.

    None where the two can't be told apart: a bank of zeros, a static twin, routing that ignores its input.
    """
    if reference.frozen is None:
        return None
    told = np.abs(reference.frozen - reference.logits).max(1) > 2 * budgets
    if not told.any():
        return None
    to_reference = np.abs(logits - reference.logits).max(1)
    to_frozen = np.abs(logits - reference.frozen).max(1)
    return bool((to_reference[told] < to_frozen[told]).all())


def batch_is_its_samples(run: Run, images: NDArray[np.uint8], batch: int | None, budgets: NDArray[np.float64]) -> bool:
    """Whether a sample gets the same logits beside other samples as alone, or beside copies of itself."""
    alone = np.concatenate([run(np.repeat(images[i : i + 1], batch or 1, 0))[:1] for i in range(len(images))])
    size = batch or 2
    together = np.concatenate([run(images[i : i + size]) for i in range(0, len(images), size)])
    return bool((np.abs(together - alone).max(1) <= budgets).all())
