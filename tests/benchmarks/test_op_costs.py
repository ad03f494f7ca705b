"""That the costs of single ops add up, and can be seen."""

import json

from benchmarks import op_costs
from benchmarks.run import RESULTS


def test_kinds_and_parts_are_of_the_same_ops():
    results = json.loads((RESULTS / "op_costs.json").read_text())
    for figure in ("ops", "instructions", "time_us"):
        kinds, parts = (sum(row[figure] for row in results[name]) for name in ("kinds", "parts"))
        assert abs(kinds - parts) < 1e-6 * kinds
    assert {row["part"] for row in results["parts"]} == {*op_costs.PARTS.values(), "head"}


def test_a_plot_is_drawn(tmp_path):
    op_costs.draw(json.loads((RESULTS / "op_costs.json").read_text()), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
