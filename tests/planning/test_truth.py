"""The formulas against every published measurement that can be judged."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from planner_truth import KV, TOTAL, UNJUDGED, WEIGHTS, Case, cases, rows
from support.planning.planned import catalog
from truth_verdicts import Verdict, verdicts
from weight_rules import gguf_bytes, safetensors_bytes

SMALL = catalog().models["mistral-small-3.1"]
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


@pytest.mark.parametrize("name", ["q4_k_m", "q6_k", "q8_0"])
def test_gguf_weights_by_rule_are_the_catalogue_s_to_the_byte(name: str) -> None:
    assert gguf_bytes(SMALL.architecture.text, name) == SMALL.variants[name].weights_bytes


@pytest.mark.parametrize("name", ["bf16", "fp8", "w4a16", "bnb-4bit", "bnb-8bit"])
def test_safetensors_weights_by_rule_are_the_catalogue_s_within_one_percent(name: str) -> None:
    variant = SMALL.variants[name]
    stated = variant.weights_bytes + variant.projector_bytes
    assert safetensors_bytes(SMALL.architecture, name) == pytest.approx(stated, rel=0.01)
