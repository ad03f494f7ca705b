"""A budget is held by what comes out, not by what was foretold: rounds that aim by what was missed."""

import pytest

from export.quantize.budget import Budget
from export.quantize.fitting import ROUNDS, fit
from export.quantize.sensitivity import Damage
from runtime.errors import UsageError

WEIGHTS, FIXED = 1000, 500  # of each module; bytes that are no weights
NAMES = ("a", "b", "c", "d")
SQUARES = {"a": 1e-3, "b": 1e-4, "c": 1e-5, "d": 1e-6}  # what int8 does to logits of at most 1; fp16 does a hundredth
DAMAGES = {
    "w8": [Damage(name, WEIGHTS, 3 * WEIGHTS, SQUARES[name], 1.0) for name in NAMES],
    "fp16": [Damage(name, WEIGHTS, 2 * WEIGHTS, SQUARES[name] / 100, 1.0) for name in NAMES],
}
ORIGINAL = bytes(range(250)) * ((4 * WEIGHTS * len(NAMES) + FIXED) // 250)
BYTES = {"fp32": 4, "fp16": 2, "w8": 1}


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(ORIGINAL)
    return path


@pytest.fixture
def rewrite(artifact):
    """A quantiser that adds `surplus` bytes where not all is int8; it keeps what it was asked for, after that."""

    def quantise(exceptions):
        assert artifact.read_bytes() == ORIGINAL  # never what is quantised already
        if exceptions:
            quantise.asked.append(dict(exceptions))
        weights = sum(WEIGHTS * BYTES[exceptions.get(name, "w8")] for name in NAMES)
        artifact.write_bytes(bytes(FIXED + weights + (quantise.surplus if exceptions else 0)))

    quantise.asked, quantise.surplus = [], 0
    return quantise


def unmeasured():
    pytest.fail("a size needs no accuracy")


def test_what_fits_at_once_takes_one_round(artifact, rewrite):
    exceptions = fit(Budget(megabytes=7500e-6), DAMAGES, artifact, rewrite, unmeasured)
    assert rewrite.asked == [exceptions]
    assert exceptions == {"a": "fp16", "b": "fp16", "c": "fp16"}  # 3000 bytes above the 4500 of int8 everywhere
    assert artifact.stat().st_size == 7500
    assert list(artifact.parent.iterdir()) == [artifact]


def test_a_file_larger_than_foretold_is_made_again(artifact, rewrite):
    rewrite.surplus = 1
    exceptions = fit(Budget(megabytes=7500e-6), DAMAGES, artifact, rewrite, unmeasured)
    assert rewrite.asked == [{"a": "fp16", "b": "fp16", "c": "fp16"}, exceptions]
    assert exceptions == {"a": "fp16", "b": "fp16"}
    assert artifact.stat().st_size == 6501
    assert list(artifact.parent.iterdir()) == [artifact]


def test_what_was_missed_adds_up(artifact, rewrite):
    """Each round is one dB worse than its choice should be, and the next aims by all that was missed so far."""
    measured = iter([49.0, 49.5, 50.0])
    foretold = []

    def psnr_db():
        foretold.append(rewrite.asked[-1])
        return next(measured)

    exceptions = fit(Budget(psnr_db=50), DAMAGES, artifact, rewrite, psnr_db)
    assert foretold == rewrite.asked
    assert len(foretold) == 3
    assert exceptions == foretold[-1]
    assert list(artifact.parent.iterdir()) == [artifact]
    bare = [fit_once(db, artifact, rewrite) for db in (50, 51, 51.5)]
    assert foretold == bare
    assert fit_once(60, artifact, rewrite) != bare[0]  # or the aim would not show


def fit_once(db, artifact, rewrite):
    """What is chosen for so many dB if it comes out as foretold."""
    artifact.write_bytes(ORIGINAL)
    return fit(Budget(psnr_db=db), DAMAGES, artifact, rewrite, lambda: db)


def test_an_exact_artifact_has_enough(artifact, rewrite):
    assert fit(Budget(psnr_db=1000), DAMAGES, artifact, rewrite, lambda: None) == dict.fromkeys(NAMES, "fp32")
    assert len(rewrite.asked) == 1


@pytest.mark.parametrize("budget", [Budget(megabytes=7500e-6), Budget(psnr_db=50)], ids=str)
def test_after_so_many_rounds_it_is_given_up(artifact, rewrite, budget):
    def one_byte_too_many(exceptions):
        rewrite(exceptions)
        if exceptions:
            artifact.write_bytes(bytes(7501))

    with pytest.raises(UsageError, match=f"within {budget} was found in {ROUNDS} rounds; give more room"):
        fit(budget, DAMAGES, artifact, one_byte_too_many, lambda: 49.999)
    assert len(rewrite.asked) == ROUNDS
    assert list(artifact.parent.iterdir()) == [artifact]


def test_the_float_original_goes_when_the_quantiser_fails(artifact):
    def fail(_):
        raise RuntimeError("no such operator")

    with pytest.raises(RuntimeError, match="no such operator"):
        fit(Budget(psnr_db=50), DAMAGES, artifact, fail, lambda: None)
    assert list(artifact.parent.iterdir()) == [artifact]


def test_a_size_that_can_not_be_had_is_refused_before_a_round(artifact, rewrite):
    """By what int8 everywhere really takes, and in terms of what was asked for."""
    with pytest.raises(UsageError, match=r"a budget of 0.004 MB is too small: with w8 everywhere it takes 0.01 MB"):
        fit(Budget(megabytes=0.004), DAMAGES, artifact, rewrite, unmeasured)
    assert rewrite.asked == []
    assert list(artifact.parent.iterdir()) == [artifact]
