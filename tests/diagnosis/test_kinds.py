"""Kinds of failures by their mechanism, in wordings that no engine was seen to use."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mscli.diagnosis.causes import LIKELY, START
from mscli.diagnosis.diagnose import diagnose

ROWS = yaml.safe_load((Path(__file__).parent / "kinds.yaml").read_text())


def likely(log: str) -> list[tuple[str, float]]:
    return [(cause.code, cause.confidence) for cause in diagnose(log) if cause.confidence >= LIKELY]


@pytest.mark.parametrize("row", [row for row in ROWS if "code" in row], ids=lambda row: row["name"])
def test_the_mechanism_is_recognized_in_another_wording(row: dict[str, str]) -> None:
    found = likely(row["log"])

    assert found, diagnose(row["log"])
    assert found[0][0] == row["code"], found


@pytest.mark.parametrize("row", [row for row in ROWS if "not" in row], ids=lambda row: row["name"])
def test_a_near_miss_is_not_taken_for_the_kind(row: dict[str, str]) -> None:
    assert row["not"] not in dict(likely(row["log"]))


@pytest.mark.parametrize("row", [row for row in ROWS if "also" in row], ids=lambda row: row["name"])
def test_a_second_reading_is_shown_beside_the_first(row: dict[str, str]) -> None:
    assert row["also"] in [cause.code for cause in diagnose(row["log"])][:3]


@pytest.mark.parametrize(
    "row", [row for row in ROWS if not {"code", "not", "also"} & row.keys()], ids=lambda row: row["name"]
)
def test_frames_and_harmless_refusals_are_no_cause(row: dict[str, str]) -> None:
    causes = [cause for cause in diagnose(row["log"]) if cause.confidence >= LIKELY and cause.scope == START]

    assert causes == []


def test_evidence_keeps_the_names_that_are_not_searched() -> None:
    log = next(row["log"] for row in ROWS if row["name"] == "404, a name with words")

    assert any("acme/mmproj-tool-parser-proxy" in line for line in diagnose(log)[0].evidence)
