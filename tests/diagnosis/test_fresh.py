"""Failures of public threads that were labelled before anything was learnt from them."""

import json
from pathlib import Path

import pytest

from mscli.diagnosis.causes import CAUSES
from mscli.diagnosis.diagnose import diagnose

ROWS = [json.loads(row) for row in (Path(__file__).parent / "fresh.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("half", "first", "in_three"), [("learn", 75, 77), ("judge", 69, 71), ("last", 39, 39)])
def test_no_fresh_failure_that_was_named_is_lost(half: str, first: int, in_three: int) -> None:
    named = [([cause.code for cause in diagnose(row["log"])][:3], row["code"]) for row in ROWS if row["half"] == half]

    assert sum(codes[:1] == [code] for codes, code in named) >= first
    assert sum(code in codes for codes, code in named) >= in_three


def test_each_failure_has_a_source_of_its_own_and_a_known_code() -> None:
    assert {row["code"] for row in ROWS} <= set(CAUSES)
    assert len({row["source"] for row in ROWS}) == len(ROWS)
