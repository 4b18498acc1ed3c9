"""The formulas against every published measurement that can be judged."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from planner_truth import KV, TOTAL, UNJUDGED, WEIGHTS, Case, cases, rows
from truth_verdicts import Verdict, verdicts

ALLOWED = {KV: 0.0, WEIGHTS: 0.01, TOTAL: 0.05}


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.row} {case.kind}")
def test_figures_agree(case: Case) -> None:
    """KV cache to the last printed digit, weights within 1 %, totals within 5 %."""
    allowed = ALLOWED.get(case.kind, 0.0)
    assert abs(case.error) <= allowed, (
        f"row {case.row}, {case.what}: {case.predicted:,} against {case.measured:,} bytes"
    )


@pytest.mark.parametrize("verdict", verdicts(), ids=lambda item: f"{item.row} {item.what}")
def test_nothing_that_did_not_run_is_called_safe(verdict: Verdict) -> None:
    assert not verdict.wrong, f"row {verdict.row} ({verdict.what}): in reality {verdict.reality}: {verdict.said}"


def test_every_row_is_judged_or_says_why_not() -> None:
    judged = {case.row for case in cases()}
    assert judged | set(UNJUDGED) == set(range(1, len(rows()) + 1))
    assert not judged & set(UNJUDGED)
