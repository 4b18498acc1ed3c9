"""Takes the screens of `mscli chat` in tmux, and writes docs/reference/chat-screens.md of them.

PYTHONPATH=tests python -m support.screens.chat
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from mscli.cli.layout import wrapped
from support.chat.scripted import DIES, HANGS, reply, scripted
from support.pages import DOCS
from support.run_mscli import environment
from support.tmux import Tmux, in_tmux

PAGE = DOCS / "reference" / "chat-screens.md"
_HEAD = """\
# Screens of `mscli chat`

Taken in tmux from a scripted model; `tests/screens/test_chat_screens.py` compares them with what is shown today. To
take them again: `PYTHONPATH=tests python -m support.screens.chat`. What can be typed:
[Talk to a model](../how-to/chat.md).
"""
_COST = re.compile(r"9 tokens,\s+(?:[\d.,]+\s+tok/s,\s+)?first\s+token\s+[\d.]+\s+s,\s+(context\s[^%]+%\))")

_MARKDOWN = reply(
    "## Disk full\n\nThe build **failed** when `/var` had no space left:\n\n"
    "1. `apt` filled the cache\n2. the link step wrote 3 GiB\n\n| Folder | Size |\n|---|--:|\n| cache | 9 GiB |\n"
    "| build | 3 GiB |\n\n```sh\napt-get clean\n```\n",
    prompt_tokens=412,
)
_THINKING = reply("408.", thought=["17 times 24: 17 times 20 is 340, ", "and 17 times 4 is 68."], prompt_tokens=58)
_FULL = reply("It is the twelfth of May.", prompt_tokens=3600)
_SUMMARY = reply("The user plans a trip in May and asked for dates.", prompt_tokens=3700)


def _markdown(window: Tmux) -> None:
    window.type("Why did the build fail?")
    window.prompt("(10%)")


def _thoughts(window: Tmux) -> None:
    window.type("What is 17 times 24?")
    window.prompt("408")


def _room(window: Tmux) -> None:
    for _ in range(2):
        window.type("Which day?")
        window.prompt("starts over")
    window.type("/summarize")
    window.prompt("still sent")


def _stopped(window: Tmux) -> None:
    window.type("Write a long poem.")
    window.until("The sea")
    window.keys("C-c")
    window.prompt("is kept")


def _died(window: Tmux) -> None:
    window.type("Write a long poem.")
    window.prompt("error:")


def _waits(window: Tmux) -> None:
    window.type("Read all of it.")
    window.until("first token: 1 s")


_POEM = reply("The sea was calm,\nand nobody", " spoke.")[:1]
# Name -> the replies, what is typed, and the width.
SCENES: Mapping[str, tuple[tuple[list[str], ...], Callable[[Tmux], None], int]] = {
    "A reply in Markdown": ((_MARKDOWN,), _markdown, 80),
    "The same at 40 columns": ((_MARKDOWN,), _markdown, 40),
    "A model that thinks (the reasoning is dim)": ((_THINKING,), _thoughts, 80),
    "Waiting for a long prompt": (([HANGS],), _waits, 80),
    "A reply that Ctrl-C stopped": (([*_POEM, HANGS],), _stopped, 80),
    "A server that dies in a reply": (([*_POEM, DIES],), _died, 80),
    "A context that is nearly full": ((_FULL, _FULL, _SUMMARY), _room, 80),
}


def screen_of(name: str) -> str:
    """The screen of a scene, taken now, without what differs from run to run."""
    replies, typed, width = SCENES[name]
    with tempfile.TemporaryDirectory() as folder:
        user, home = Path(folder), Path(folder) / "home"
        with (
            scripted(home, *replies, alias="magistral-small") as _,
            in_tmux("chat", env=environment(user, home), folder=user / "window", width=width) as window,
        ):
            window.prompt("Ctrl-D")
            typed(window)
            return steady(window.screen, width)


def steady(screen: str, width: int) -> str:
    """The screen with the same speed and time in each cost of a reply."""

    def same(found: re.Match[str]) -> str:
        room = " ".join(found[1].split())
        return "\n".join(wrapped(f"9 tokens, 95.1 tok/s, first token 0.02 s, {room}", width, "", "  "))

    return "\n".join(line.rstrip() for line in _COST.sub(same, screen).split("\n"))


def page() -> str:
    """The whole page, taken now."""
    parts = [f"## {name}\n\n```text\n{screen_of(name)}\n```\n" for name in SCENES]
    return "\n".join([_HEAD, *parts])


if __name__ == "__main__":
    os.environ.pop("COLUMNS", None)
    PAGE.write_text(page())
