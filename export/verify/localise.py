"""Where an artifact leaves its reference: the first module, by its PyTorch name, whose output is beyond its budget.

All that is needed is in the package: where in the artifact the modules' outputs are, and sketches of what they must be.
Modules come in the order in which PyTorch runs them, in which none depends on a later one: so what makes the first
module beyond its budget wrong is in it, or between it and what it depends on.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export.verify.intermediates import open_with
from export.verify.taps import filled, joined
from runtime.errors import UsageError
from runtime.golden import read_golden
from runtime.manifest import Package
from runtime.preprocess import to_input
from runtime.sketch import sketch


@dataclass(frozen=True)
class ModuleError:
    """Of one module's output, at the golden image where it is largest, relative to the budget.

    `of_budget` is the error over what is allowed, `relative` over the output itself, in the Euclidean norm.
    """

    module: str
    of_budget: float
    relative: float
    image: str

    @property
    def passed(self) -> bool:
        return self.of_budget <= 1


@dataclass(frozen=True)
class Localisation:
    """Every tapped module's error, in the order of execution, and the modules that could not be tapped."""

    modules: tuple[ModuleError, ...]
    untapped: tuple[str, ...]

    @property
    def first(self) -> ModuleError | None:
        """To leave its budget."""
        return next((module for module in self.modules if not module.passed), None)

    @property
    def summary(self) -> str:
        tapped = f"{len(self.modules)} of {len(self.modules) + len(self.untapped)} modules tapped"
        if self.first is None:
            return f"{tapped}, all within their budgets"
        error = f"error {self.first.of_budget:.3g} x its budget"
        return f"{tapped}, first to leave its budget: {self.first.module} ({error})"

    def table(self) -> str:
        """A line a module, and the summary."""
        lines = [f"{'error/budget':>12}  {'relative error':>14}  module"]
        for each in self.modules:
            mark = "" if each.passed else "  LEFT ITS BUDGET"
            lines.append(f"{each.of_budget:12.3g}  {each.relative:14.1e}  {each.module}{mark}")
        return "\n".join([*lines, self.summary])

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {"first": self.first and self.first.module, **asdict(self)}


def localise(package: Package, cpu: str | None = None) -> Localisation:
    """Run the package's artifact on its golden images, here or on an emulated ARM64 `cpu`, and judge every module.

    Raises `UsageError` for a package without taps, and what `open_with` and the artifact's runner raise.
    """
    golden = None if package.golden is None else read_golden(package.golden)
    if golden is None or golden.taps is None:
        how = ", without --nms and at 512 x 512 px or less" if package.manifest.detection is not None else ""
        raise UsageError(f"{package.path} does not say what its modules compute; export it again{how}")
    taps, spec = golden.taps, package.manifest.inputs[0]
    names = tuple(dict.fromkeys(name for tensors in taps.tensors for name in tensors))
    found = np.empty(taps.sketches.shape)
    with open_with(package.manifest.format, package.artifact, names, cpu, spec.function) as infer:
        for i, image in enumerate(np.split(golden.images, len(golden.images))):
            values = infer(to_input(filled(image, spec), spec))
            for module, tensors in enumerate(taps.tensors):
                found[module, i] = sketch(joined([values[name] for name in tensors]))
    distances = np.linalg.norm(found - taps.sketches, axis=2)
    distances = np.where(np.isfinite(distances), distances, 1e30)  # a NaN is as wrong as can be, and JSON
    of_budget = _ratio(distances, taps.budgets)
    relative = _ratio(distances, np.linalg.norm(taps.sketches, axis=2))
    worst = of_budget.argmax(1)
    return Localisation(
        tuple(
            ModuleError(module, float(of_budget[k, i]), float(relative[k, i]), golden.names[i])
            for k, (module, i) in enumerate(zip(taps.modules, worst, strict=True))
        ),
        taps.untapped,
    )


def _ratio(distances: Any, allowed: Any) -> Any:
    """Nothing of nothing is nothing: an output that is zero, and allowed to be nothing else."""
    return np.where(distances == 0, 0, distances / np.maximum(allowed, 1e-30))
