"""An artifact under a budget: modules get bits by their sensitivity, and what comes out is measured until it holds."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path

from export.precision import Exceptions, Precision
from export.quantize.budget import Budget, assign
from export.quantize.sensitivity import Damage
from runtime.errors import UsageError

CHOICES: tuple[Precision, ...] = ("fp16", "w8")  # and fp32
LEAST_STEP = 1e-3  # of the size, that is aimed lower: a few bytes less would choose the same again
ROUNDS = 5  # a format adds bytes of its own, and errors don't quite add up: each round aims by what was missed


def fit(
    budget: Budget,
    damages: Mapping[Precision, Sequence[Damage]],
    artifact: Path,
    rewrite: Callable[[Exceptions], None],
    psnr_db: Callable[[], float | None],
) -> Exceptions:
    """Rewrite a float32 artifact within a budget; the modules that are not w8, and what they are.

    `rewrite` quantises the artifact in place, `psnr_db` measures it as it is (None: it is exact).
    Raises `UsageError` for a budget that can't be held.
    """
    original = artifact.with_name(f"float32-{artifact.name}")
    shutil.copy(artifact, original)
    surplus, deficit = 0.0, 0.0  # bytes and dB, of the rounds so far
    try:
        rewrite({})
        least = artifact.stat().st_size
        if budget.megabytes is not None and least > budget.megabytes * 1e6:
            raise UsageError(
                f"a budget of {budget.megabytes:g} MB is too small: with w8 everywhere it takes "
                f"{ceil(least / 1e4) / 100:.2f} MB; give that or more"
            )
        fixed = least - sum(4 * damage.weights - damage.saved_bytes for damage in damages["w8"])
        for _ in range(ROUNDS):
            if budget.megabytes is not None:
                chosen = assign(damages, fixed, budget_bytes=max(int(budget.megabytes * 1e6 - surplus), least))
            else:
                chosen = assign(damages, fixed, min_psnr_db=(budget.psnr_db or 0) + deficit)
            exceptions = {module: precision for module, precision in chosen.items() if precision != "w8"}
            shutil.copy(original, artifact)
            rewrite(exceptions)
            if budget.megabytes is not None:
                missed = artifact.stat().st_size - budget.megabytes * 1e6
                surplus += max(missed, LEAST_STEP * budget.megabytes * 1e6)
            else:
                found = psnr_db()
                missed = 0.0 if found is None else (budget.psnr_db or 0) - found
                deficit += missed
            if missed <= 0:
                return exceptions
    finally:
        original.unlink()
    raise UsageError(f"no choice of precisions within {budget} was found in {ROUNDS} rounds; give more room")
