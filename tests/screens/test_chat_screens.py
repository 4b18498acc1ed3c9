"""The screens of `mscli chat` in the documentation are what a terminal shows."""

from __future__ import annotations

import pytest
from support.screens.chat import PAGE, SCENES, screen_of
from support.tmux import needs_tmux


@needs_tmux
@pytest.mark.parametrize("name", SCENES)
def test_a_screen_of_the_page_is_what_is_shown(name: str) -> None:
    assert f"## {name}\n\n```text\n{screen_of(name)}\n```\n" in PAGE.read_text()
