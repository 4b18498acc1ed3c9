"""A reply on a terminal while it streams: finished blocks rendered once, below them the last rows of what comes next.

Only those few rows are ever drawn again. What is finished is written once and scrolls like any other output.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from mscli.cli.layout import cells, rows_of
from mscli.cli.markdown_blocks import Block, Blocks
from mscli.untrusted import clean

if TYPE_CHECKING:
    from mscli.cli.screen import Screen

_DRAW_EVERY_S = 0.05
_MOST_ROWS = 8


class LiveMarkdown:
    """One reply. Only the last rows of the text are held back for drawing; `end` finishes them."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._blocks = Blocks()
        self._tail = _Tail(screen)
        self._gap = False  # a blank line is due before the next block
        self._drawn_at = 0.0

    def feed(self, text: str) -> None:
        """Take a piece of the reply."""
        for block in self._blocks.feed(clean(text)):
            self._print(block)
        if (now := time.monotonic()) - self._drawn_at >= _DRAW_EVERY_S:
            self._drawn_at = now
            self._tail.draw(self._blocks.rest)

    def end(self) -> None:
        """Print what is left, also of a reply that broke off. The cursor is at the start of a line then."""
        plain = False
        for block in self._blocks.end():
            self._print(block)
            plain = not block.text.endswith("\n") and block.kind != "markdown"
        self._tail.erase()
        if plain:
            self._screen.drawn("\n")
        self._gap = False

    def _print(self, block: Block) -> None:
        self._tail.erase()
        self._drawn_at = 0.0
        text = block.text
        if block.kind != "markdown":
            before = "\n" if self._gap else ""
            self._gap = False
            self._screen.drawn(before + (_dim(text) if block.kind == "fence" else text))
            return
        if text.strip():
            from mscli.cli.markdown_view import rendered  # rich, which takes a fifth of a second

            self._screen.drawn(("\n" if self._gap else "") + rendered(text, self._screen.width or 80))
            self._gap = text.endswith("\n\n")


class _Tail:
    """The last rows of an unfinished text, which can be taken off the screen again."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._rows: list[str] = []
        self._width = 0
        # A terminal that is made narrower wraps its lines anew; xterm does not.
        self._reflows = "XTERM_VERSION" not in os.environ

    def draw(self, text: str) -> None:
        """Show the end of this text."""
        width, height = self._screen.width or 80, self._screen.height
        most = max(1, min(_MOST_ROWS, height // 3))
        rows = rows_of(text[-most * width :].expandtabs(), max(1, width - 1))[-most:]
        if rows == self._rows and width == self._width:
            return
        self._screen.drawn(self._erasure() + "\n".join(rows))
        self._rows, self._width = rows, width

    def erase(self) -> None:
        """Take it off the screen."""
        if self._rows:
            self._screen.drawn(self._erasure())
            self._rows = []

    def _erasure(self) -> str:
        if not self._rows:
            return ""
        width = self._screen.width or 80
        narrow = self._reflows and width < self._width
        taken = sum(max(1, -(-cells(row) // width)) for row in self._rows) if narrow else len(self._rows)
        return "\r" + (f"\x1b[{taken - 1}A" if taken > 1 else "") + "\x1b[J"


def _dim(text: str) -> str:
    line = text.removesuffix("\n")
    return f"\x1b[2m{line}\x1b[0m" + text[len(line) :]
