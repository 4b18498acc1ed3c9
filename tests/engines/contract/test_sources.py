"""The page on the source documents names what exists, and every `vllm serve` flag in them has its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mscli.catalog.load import load_one
from mscli.catalog.profile import on_engine
from mscli.paths import shipped_profiles

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "source-documents.md"
LM_STUDIOS_OWN = "magistral-small"
TEXT = PAGE.read_text()
VLLM = TEXT.partition("## vLLM")[2].partition("\n## ")[0]
STARTED = re.findall(r"mscli (?:up|plan|profiles show) ([\w-]+)", TEXT)
LISTED = re.findall(r"`((?:small|small32|magistral)-[\w-]+)`", TEXT)
NAMED = sorted(name for name in {*STARTED, *LISTED} - {"NAME", LM_STUDIOS_OWN} if not name.startswith("-"))
ROWS = [line.split(" | ") for line in VLLM.splitlines() if line.startswith("| ")][2:]


@pytest.mark.parametrize("name", NAMED)
def test_a_profile_that_answers_a_source_is_there(name: str) -> None:
    assert load_one(name, shipped_profiles(), None)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][2:60])
def test_every_row_about_vllm_has_an_answer(row: list[str]) -> None:
    assert len(row) == 3, "a cell is missing, or holds a bar"
    assert row[1].strip()


@pytest.mark.parametrize("row", [row for row in ROWS if "vllm serve" in row[0] or "--limit-mm" in row[0]])
def test_a_serve_line_is_answered_by_a_profile_on_vllm(row: list[str]) -> None:
    started = re.search(r"mscli up ([\w-]+)([^`]*)", row[1])
    assert started is not None
    profile, model = load_one(started[1], shipped_profiles(), None)
    assert (profile.engine, profile.instead) == ("vllm", "")
    repository = re.search(r"vllm serve (\S+)", row[0])
    assert repository is None or model.variants[profile.variant].source.repository == repository[1]
    gpus = re.search(r"--tensor-parallel-size (\d)", row[0])
    assert int(gpus[1] if gpus else 1) in profile.gpus
    assert not gpus or "--gpus 0,1" in started[2]
    asked = re.search(r"--max-model-len (\d+)", row[0])
    assert asked is None or f"--ctx {asked[1]}" in " ".join(row[1:])


@pytest.mark.parametrize("row", [row for row in ROWS if "docker run" in row[0] or "docker image" in row[0]])
def test_a_docker_line_is_answered_by_profiles_on_docker(row: list[str]) -> None:
    names = re.findall(r"`mscli up ([\w-]+) --container", row[1])
    assert names
    for name in names:
        assert on_engine(load_one(name, shipped_profiles(), None)[0], "vllm-docker").engine == "vllm-docker"
