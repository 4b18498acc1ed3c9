"""A log is searched quickly, and finds no less for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mscli.diagnosis.tables import MECHANISMS
from mscli.diagnosis.topics import TOPICS
from mscli.diagnosis.wordings import fixed_pieces, spread, worth_searching

FRESH = [json.loads(row)["log"] for row in (Path(__file__).parent / "fresh.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("wording", "pieces"),
    [
        ("no kernel image is available", {"available"}),
        (r"errors?: disk (?:is )?full", {"error"}),
        (r"(?:mkdir|open)\b.{0,120}denied", {"denied"}),
        (r"\b(?:mkdir|opendir)\b: \d+", {"mkdir", "opendir"}),
        (r"(?:permission )?\d+", set()),
        (r"(?!harmless)CUDA\w+", {"cuda"}),
        (r"return(?:ed)?.{0,20}\b137\b", {"return"}),
        (r"[Ff]ail\(s\)", {"ail(s)"}),
        (r"a+bcd", {"bcd"}),
        (r"abcd{0,2}", {"abc"}),
    ],
)
def test_a_piece_is_what_every_match_holds(wording: str, pieces: set[str]) -> None:
    assert fixed_pieces(wording) == pieces


def test_no_match_is_passed_over() -> None:
    searched = [(sign.pattern, text) for text in FRESH for sign in (*MECHANISMS, *TOPICS)]
    found = [(pattern, text, match) for pattern, text in searched if (match := spread(pattern).search(text))]
    missed = [(pattern, text) for pattern, text, match in found if _quickly(pattern, text) != match.span()]

    assert len(found) > len(FRESH)
    assert missed == []


def _quickly(pattern: str, text: str) -> tuple[int, int] | None:
    wordings = worth_searching(pattern, text.lower())
    match = spread(wordings).search(text) if wordings else None
    return match.span() if match else None


def test_only_what_may_match_is_searched() -> None:
    assert worth_searching("disk full|no kernel image|(?:a|b)?", "disk full") == "disk full|(?:a|b)?"
    assert worth_searching("disk full|no kernel image", "all is well") is None
