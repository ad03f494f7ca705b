"""Artifact against reference: the figures, and the gate that a package must pass.

The yardstick is the error against float64 that the eager model has in the artifact's precision: in float32, with its
weights rounded. Each input has its own budget, because a network amplifies rounding more at some inputs than at others:
so many yardsticks of that input, or so much of its largest reference value, whichever is larger. Top-1 must agree
wherever the reference's margin exceeds the error.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.precision import Precision
from export.verify.objects import Objects, judge
from export.verify.reference import Answers, Output, Reference, Values
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
HALF_OBJECTS = 1e-2  # the same of a detector, whose largest values are the sides of the image and the surest score


def tolerance_of(precision: Precision, in_half: bool, is_detector: bool = False) -> Tolerance:
    """What an artifact of this precision may differ by; `in_half`: it computes in fp16."""
    tolerance, half = TOLERANCES[precision], HALF_OBJECTS if is_detector else HALF
    return replace(tolerance, relative=max(tolerance.relative, half)) if in_half else tolerance


Run = Callable[[NDArray[np.uint8]], Answers]
"""Images uint8 (N, H, W, 3) -> what an artifact gives for them."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """The figures for the manifest, what failed, in words, the answers that were judged, what objects were expected."""

    parity: Parity
    failures: tuple[str, ...]
    answers: Answers
    objects: Objects | None = None


def verify(
    run: Run, reference: Reference, tolerance: Tolerance, checked_by: str, batch: int | None, oracle: str = ORACLE
) -> Verdict:
    """Judge an artifact by its outputs. `batch` is its fixed batch size, None for any; `oracle` is what it must equal.

    `ValueError` for outputs of another name or shape.
    """
    images, names = reference.inputs.images, reference.inputs.names
    answers = run(images)
    outputs, failures = [], list[str]()
    budgets: dict[str, Values] = {}
    for expected in reference.outputs:
        if expected.name not in answers:
            raise ValueError(f"no output {expected.name!r}, only {', '.join(answers)}")
        output = compare(expected, answers[expected.name], names, tolerance)
        outputs.append(output)
        failures += gate(output)
        budgets[expected.name] = np.array([each.budget_abs_error for each in output.per_input])
    told = [routing_follows_input(answers[each.name], each, budgets[each.name]) for each in reference.outputs]
    not_frozen = None if all(each is None for each in told) else False not in told
    if not_frozen is False:
        failures.append("routing seems frozen: outputs are nearer to those of a network that routes all like the first")
    detections = None
    if reference.objects is not None:
        detections, wrong = judge(reference.objects, answers, names)
        failures += wrong
    consistent = None if batch == 1 else batch_is_its_samples(run, reference, batch, budgets)
    if consistent is False:
        failures.append("a batch is not its samples: outputs change with the samples beside them")
    parity = Parity(
        oracle=oracle,
        passed=not failures,
        tolerance=tolerance,
        outputs=tuple(outputs),
        detections=detections,
        routing_not_frozen=not_frozen,
        batch_consistent=consistent,
        inputs=names,
        checked_by=checked_by,
    )
    return Verdict(parity, tuple(failures), answers, reference.objects)


def compare(
    expected: Output, given: Sequence[NDArray[Any]], names: tuple[str, ...], tolerance: Tolerance
) -> OutputParity:
    """The figures of one output for inputs of these names. `ValueError` for another shape."""
    found, reference = expected.of(given), expected.values
    if found.shape != reference.shape:
        raise ValueError(f"{expected.name} is {found.shape}, the reference {reference.shape}")
    peaks, errors = expected.sizes(reference), expected.sizes(found - reference)
    budgets = budgets_of(expected, tolerance)
    mean_square = float((np.where(np.isfinite(found), found - reference, 1e30) ** 2).mean())
    agreement, margin = _top1(found, reference, errors) if expected.name == "logits" else (None, None)
    return OutputParity(
        name=expected.name,
        max_abs_error=float(errors.max()),
        max_rel_error=float(errors.max() / peaks.max()),
        psnr_db=None if mean_square == 0 else float(10 * np.log10(np.abs(reference).max() ** 2 / mean_square)),
        top1_agreement=agreement,
        top1_min_margin=margin,
        yardstick_max_abs_error=float(expected.yardsticks.max()),
        budget_max_abs_error=float(budgets.max()),
        reference_max_abs=float(peaks.max()),
        per_input=tuple(
            InputParity(*each)
            for each in zip(names, errors.tolist(), expected.yardsticks.tolist(), budgets.tolist(), strict=True)
        ),
    )


def budgets_of(expected: Output, tolerance: Tolerance) -> Values:
    """By how much an output may differ, by input (N)."""
    return np.maximum(tolerance.yardstick_factor * expected.yardsticks, tolerance.relative * expected.peaks)


def _top1(found: Values, reference: Values, errors: Values) -> tuple[float | None, float | None]:
    """The share of the inputs of the same class whose margin exceeds the error, and the smallest margin."""
    if reference.shape[1] < 2:
        margins = np.zeros(len(reference))
    else:
        ranked = np.sort(reference, 1)
        margins = ranked[:, -1] - ranked[:, -2]
    decided = margins > errors
    agrees = found.argmax(1) == reference.argmax(1)
    return (
        float(agrees[decided].mean()) if decided.any() else None,
        float(margins.min()) if reference.shape[1] > 1 else None,
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


def routing_follows_input(given: Sequence[NDArray[Any]], expected: Output, budgets: Values) -> bool | None:
    """Whether the artifact is nearer to the reference than to one whose routing is frozen at the first sample.

    None where the two can't be told apart: a bank of zeros, a static twin, routing that ignores its input.
    """
    if expected.frozen is None:
        return None
    told = expected.sizes(expected.frozen - expected.values) > 2 * budgets
    if not told.any():
        return None
    found = expected.of(given)
    to_reference = expected.sizes(found - expected.values)
    to_frozen = expected.sizes(found - expected.frozen)
    return bool((to_reference[told] < to_frozen[told]).all())


def batch_is_its_samples(run: Run, reference: Reference, batch: int | None, budgets: dict[str, Values]) -> bool:
    """Whether a sample gets the same outputs beside other samples as alone, or beside copies of itself."""
    images, size = reference.inputs.images, batch or 2
    alone = [run(np.repeat(images[i : i + 1], batch or 1, 0)) for i in range(len(images))]
    together = [run(images[i : i + size]) for i in range(0, len(images), size)]

    def is_same(output: Output) -> bool:
        beside = output.of([row for each in together for row in each[output.name]])
        by_itself = output.of([each[output.name][0] for each in alone])
        return bool((output.sizes(beside - by_itself) <= budgets[output.name]).all())

    return all(is_same(output) for output in reference.outputs)
