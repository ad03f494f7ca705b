"""The gate itself: figures against closed forms, and everything it must not let through."""

from dataclasses import replace

import numpy as np
import pytest

from export.verify.inputs import Inputs
from export.verify.parity import TOLERANCES, compare, gate, routing_follows_input, tolerance_of, verify
from export.verify.reference import Output, Reference
from runtime.manifest import Tolerance
from runtime.sketch import sketch

N, CLASSES = 4, 10
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(N, CLASSES)) * 5
FROZEN = np.vstack([LOGITS[:1], LOGITS[1:] + RNG.normal(size=(N - 1, CLASSES))])
IMAGES = np.zeros((N, 2, 2, 3), np.uint8)
IMAGES[:, 0, 0, 0] = np.arange(N)
OUTPUT = Output("logits", LOGITS, np.full(N, 1e-6), FROZEN)
REFERENCE = Reference(Inputs(IMAGES, ("a", "b", "c", "d")), (OUTPUT,))
NOISE = RNG.uniform(-1, 1, LOGITS.shape)


def artifact(logits):
    """A run function that knows the images by their first pixel."""
    return lambda images: {"logits": np.asarray(logits, np.float64)[images[:, 0, 0, 0]]}


def judge(logits, batch=1):
    return verify(artifact(logits), REFERENCE, TOLERANCES["fp32"], "test", batch)


def against(reference, yardstick=1e-6):
    """A reference of these logits alone."""
    return Output("logits", reference, np.broadcast_to(yardstick, len(reference)))


def compared(values, reference, tolerance):
    return compare(reference, values, tuple(f"input {i}" for i in range(len(reference.values))), tolerance)


def test_figures_are_their_definitions():
    values = LOGITS + 1e-3 * NOISE
    yardsticks = np.array([1e-9, 1e-6, 1.0, 2e-5])
    output = compared(values, against(LOGITS, yardsticks), TOLERANCES["fp32"])
    error = np.abs(values - LOGITS)
    peak = np.abs(LOGITS).max()
    assert output.max_abs_error == error.max()
    assert output.max_rel_error == pytest.approx(error.max() / peak)
    assert output.psnr_db == pytest.approx(20 * np.log10(peak) - 10 * np.log10(np.mean(error**2)))
    assert output.reference_max_abs == peak
    assert output.yardstick_max_abs_error == 1.0
    assert output.budget_max_abs_error == 10
    top = np.sort(LOGITS, 1)
    assert output.top1_min_margin == pytest.approx((top[:, -1] - top[:, -2]).min())
    for i, each in enumerate(output.per_input):
        assert each.name == f"input {i}"
        assert each.max_abs_error == error[i].max()
        assert each.yardstick_abs_error == yardsticks[i]
        assert each.budget_abs_error == pytest.approx(max(10 * yardsticks[i], 1e-4 * np.abs(LOGITS[i]).max()))


def test_an_input_can_not_hide_behind_another_ones_budget():
    yardsticks = np.array([1e-6, 1e-6, 1.0, 1e-6])
    values = LOGITS.copy()
    values[2] += 1
    assert gate(compared(values, against(LOGITS, yardsticks), TOLERANCES["fp32"])) == []
    values[1] += 0.1
    (failure,) = gate(compared(values, against(LOGITS, yardsticks), TOLERANCES["fp32"]))
    assert failure.startswith("logits of input 1: error 0.1 exceeds the budget")


def test_equal_is_proven_and_exact():
    verdict = judge(LOGITS)
    assert verdict.failures == ()
    assert verdict.parity.passed
    assert verdict.parity.outputs[0].psnr_db is None
    assert verdict.parity.routing_not_frozen is True
    assert verdict.parity.batch_consistent is None
    assert judge(LOGITS, batch=None).parity.batch_consistent is True


def test_just_inside_passes_and_just_outside_fails():
    budget = 1e-4 * np.abs(LOGITS).max(1, keepdims=True)
    assert judge(LOGITS + 0.99 * budget).failures == ()
    assert judge(LOGITS + 1.01 * budget).failures


@pytest.mark.parametrize(
    ("precision", "in_half", "relative"),
    [
        ("fp32", False, 1e-4),
        ("fp16", False, 1e-3),
        ("fp16", True, 5e-2),
        ("w8", False, 2e-2),
        ("w8", True, 5e-2),
        ("w8a8", False, 5e-2),
        ("w8a8", True, 5e-2),
    ],
)
def test_each_precision_has_its_own_tolerance(precision, in_half, relative):
    budget = relative * np.abs(LOGITS).max(1, keepdims=True)
    tolerance = tolerance_of(precision, in_half)
    assert gate(compared(LOGITS + 0.99 * budget, against(LOGITS), tolerance)) == []
    assert len(gate(compared(LOGITS + 1.01 * budget, against(LOGITS), tolerance))) == N


PERMUTED = LOGITS[:, RNG.permutation(CLASSES)]
WITH_NAN = LOGITS.copy()
WITH_NAN[2, 3] = np.nan
ONE_OFF = LOGITS.copy()
ONE_OFF[3, 1] += 0.01
WRONG = {
    "scaled": LOGITS * 1.001,
    "permuted": PERMUTED,
    "zeroed": np.zeros_like(LOGITS),
    "negated": -LOGITS,
    "one logit of one input": ONE_OFF,
    "NaN": WITH_NAN,
    "infinite": np.full_like(LOGITS, np.inf),
    "samples swapped": LOGITS[::-1],
    "routing frozen": FROZEN,
}


@pytest.mark.parametrize("logits", WRONG.values(), ids=WRONG)
def test_a_wrong_output_fails(logits):
    verdict = judge(logits)
    assert verdict.failures
    assert not verdict.parity.passed


def test_the_wrong_input_is_named_and_no_other():
    assert [failure.split(":")[0] for failure in judge(ONE_OFF).failures] == ["logits of d"]


def test_frozen_routing_is_called_by_its_name():
    assert any("routing seems frozen" in failure for failure in judge(FROZEN).failures)
    assert judge(LOGITS).parity.routing_not_frozen is True


def test_routing_that_does_not_show_is_not_claimed():
    budgets = np.full(N, 1e-3)
    assert routing_follows_input(LOGITS, replace(OUTPUT, frozen=LOGITS), budgets) is None
    assert routing_follows_input(LOGITS, replace(OUTPUT, frozen=None), budgets) is None
    assert routing_follows_input(LOGITS, OUTPUT, budgets) is True
    assert routing_follows_input(FROZEN, OUTPUT, budgets) is False


LEAKS = {
    "the first sample": lambda logits: logits - logits[:1],
    "the mean": lambda logits: logits - logits.mean(0),
    "the order": lambda logits: logits * np.arange(1, len(logits) + 1)[:, None],
}


@pytest.mark.parametrize("batch", [None, 2], ids=["any batch", "batch of two"])
@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_a_batch_whose_samples_leak_into_each_other_fails(leak, batch):
    size = batch or N

    def run(images):
        logits = LOGITS[images[:, 0, 0, 0]]
        leaked = [chunk + 1e-2 * leak(chunk) for chunk in np.split(logits, range(size, len(logits), size))]
        return {"logits": np.concatenate(leaked)}

    verdict = verify(run, REFERENCE, TOLERANCES["fp32"], "test", batch)
    assert verdict.parity.batch_consistent is False
    assert any("a batch is not its samples" in failure for failure in verdict.failures)


def test_top1_counts_where_the_margin_exceeds_the_error_and_only_there():
    reference = np.array([[1.0, 0.0], [1.0, 0.999]])
    near = np.array([[1.0, 0.0], [0.998, 1.001]])  # flipped inside its own error
    loose = Tolerance(yardstick_factor=0, relative=1)
    assert gate(compared(near, against(reference), loose)) == []
    flipped = np.array([[0.4, 0.6], [1.0, 0.999]])  # flipped although the margin, 1, exceeds the error, 0.6
    failures = gate(compared(flipped, against(reference), loose))
    assert failures == ["logits: another top-1 class although the margin exceeds the error"]


def test_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"\(4, 9\), the reference \(4, 10\)"):
        compared(LOGITS[:, :9], OUTPUT, TOLERANCES["fp32"])


def test_one_class_has_no_margin_and_no_rival():
    output = compared(LOGITS[:, :1], against(LOGITS[:, :1]), TOLERANCES["fp32"])
    assert output.top1_min_margin is None
    assert output.top1_agreement is None
    assert gate(output) == []


def test_every_output_is_judged_and_has_its_own_budgets():
    boxes = Output("boxes", 100 * LOGITS, np.full(N, 1e-6))
    reference = Reference(REFERENCE.inputs, (OUTPUT, boxes))

    def verdict(logits_error, boxes_error):
        given = {"logits": LOGITS + logits_error, "boxes": 100 * LOGITS + boxes_error}
        return verify(lambda images: given, reference, TOLERANCES["fp32"], "test", 1)

    assert verdict(0, 1e-2).failures == ()
    assert {failure.split(" ")[0] for failure in verdict(0, 1).failures} == {"boxes"}
    assert {failure.split(" ")[0] for failure in verdict(1e-2, 1e-2).failures} == {"logits"}
    assert [output.name for output in verdict(0, 0).parity.outputs] == ["logits", "boxes"]
    assert [output.top1_agreement for output in verdict(0, 0).parity.outputs] == [1, None]
    with pytest.raises(ValueError, match="no output 'boxes', only logits"):
        verify(artifact(LOGITS), reference, TOLERANCES["fp32"], "test", 1)


def test_a_sketched_output_is_judged_by_the_norm():
    values = RNG.normal(size=(N, 5000))
    expected = Output("scores", np.stack([sketch(row) for row in values]), np.full(N, 1e-9), sketched=True)
    change = RNG.normal(size=values.shape)
    output = compared(values + 1e-6 * change, expected, TOLERANCES["fp32"])
    norms = np.linalg.norm(1e-6 * change, axis=1)
    assert [each.max_abs_error for each in output.per_input] == pytest.approx(
        norms.tolist(), rel=0.5
    )  # 64 sums of many
    assert gate(output) == []
    assert len(gate(compared(values + 1e-3 * change, expected, TOLERANCES["fp32"]))) == N
    assert len(gate(compared(values[:, ::-1], expected, TOLERANCES["fp32"]))) == N
