"""Failures of public threads that were labelled before anything was learnt from them."""

import json
from pathlib import Path

import pytest

from mscli.diagnosis.causes import CAUSES
from mscli.diagnosis.diagnose import diagnose

LATER = [json.loads(row) for row in (Path(__file__).parent / "fresh-2.jsonl").read_text().splitlines()]
THIRD = [json.loads(row) for row in (Path(__file__).parent / "fresh-3.jsonl").read_text().splitlines()]
ROWS = [json.loads(row) for row in (Path(__file__).parent / "fresh.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("half", "first", "in_three"), [("learn", 75, 77), ("judge", 69, 71), ("last", 39, 39)])
def test_no_fresh_failure_that_was_named_is_lost(half: str, first: int, in_three: int) -> None:
    named = [([cause.code for cause in diagnose(row["log"])][:3], row["code"]) for row in ROWS if row["half"] == half]

    assert sum(codes[:1] == [code] for codes, code in named) >= first
    assert sum(code in codes for codes, code in named) >= in_three


def test_no_later_failure_that_was_named_is_lost() -> None:
    """45 of the 60 were named first when they were tried, before anything was learnt from them."""
    named = [([cause.code for cause in diagnose(row["log"])][:1], row["code"]) for row in LATER]

    assert sum(codes == [code] for codes, code in named) >= 58


def test_no_failure_of_the_third_round_that_was_named_is_lost() -> None:
    """43 of the 60 were named first when they were tried, before anything was learnt from them."""
    named = [([cause.code for cause in diagnose(row["log"])][:3], row["code"]) for row in THIRD]

    assert sum(codes[:1] == [code] for codes, code in named) >= 52
    assert sum(code in codes for codes, code in named) >= 58


def test_each_failure_has_a_source_of_its_own_and_a_known_code() -> None:
    every = [*ROWS, *LATER, *THIRD]

    assert {row["code"] for row in every} <= set(CAUSES)
    assert len({row["source"] for row in every}) == len(every)
