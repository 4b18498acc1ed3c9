"""docs/sources.md names what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mscli.paths import shipped_profiles

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"
LM_STUDIOS_OWN = "magistral-small"
TEXT = PAGE.read_text()
STARTED = re.findall(r"mscli (?:up|plan) ([\w-]+)", TEXT)
LISTED = re.findall(r"`((?:small|small32|magistral)-[\w-]+)`", TEXT)
NAMED = sorted({*STARTED, *LISTED} - {"NAME", LM_STUDIOS_OWN})


@pytest.mark.parametrize("name", NAMED)
def test_a_profile_that_answers_a_source_is_there(name: str) -> None:
    assert (shipped_profiles() / f"{name}.yaml").is_file()
