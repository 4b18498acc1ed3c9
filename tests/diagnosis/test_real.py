"""Logs of real engines to which something known was done, and labelled failures of a second set of public threads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mscli.diagnosis.causes import LIKELY, START
from mscli.diagnosis.diagnose import diagnose, read

HERE = Path(__file__).parent
TRUTHS = [
    (folder.name, json.loads(row))
    for folder in sorted((HERE / "real").iterdir())
    for row in (folder / "truth.jsonl").read_text().splitlines()
]
CASES = [json.loads(row) for row in (HERE / "cases-2.jsonl").read_text().splitlines()]
OPEN = {"gpustack-804-forward-compat"}  # another set's label for the same line says otherwise


@pytest.mark.parametrize(("engine", "truth"), TRUTHS, ids=[truth["file"] for _, truth in TRUTHS])
def test_what_was_done_to_a_real_engine_is_told(engine: str, truth: dict[str, Any]) -> None:
    causes = read((HERE / "real" / engine / truth["file"]).read_text(errors="replace"), engine).causes
    likely = [(cause.code, cause.confidence, cause.scope) for cause in causes if cause.confidence >= LIKELY]

    if truth["healthy"]:
        assert [cause for cause in likely if cause[2] == START] == []
    elif truth["in_log"]:
        assert causes[0].code in truth["first"], likely
    else:
        assert likely == []


def test_no_failure_of_the_second_set_that_was_named_is_lost() -> None:
    codes = {"NEW:engine_crash": "engine_crashed"}
    missed = {
        case["id"]
        for case in CASES
        if [cause.code for cause in diagnose(case["log"])][:1] != [codes.get(case["category"], case["category"])]
    }

    assert missed <= OPEN
