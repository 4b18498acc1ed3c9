"""Markdown as it streams in, cut into blocks that are finished: what comes later no longer changes how they look."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from mscli.frozen import frozen

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

# A block that is longer is shown as plain text: to render a reply of 1 MB in one line takes a minute.
LONGEST_BLOCK = 20_000


@frozen
class Block:
    """Finished text. `kind`: markdown (whole lines, to be rendered), fence or code (a line of a code block, its fences
    apart), plain (text of a block that is too long, whatever its end)."""

    text: str
    kind: str


class Blocks:
    """Takes a reply's text in pieces of any size and gives its blocks."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line = ""
        self._size = 0
        self._fence = ""  # what began the code block that is open
        self._plain = False

    @property
    def rest(self) -> str:
        """The beginning of the block that is not finished."""
        return "".join(self._lines) + self._line

    def feed(self, text: str) -> Iterator[Block]:
        """The blocks that this piece finishes."""
        first, *others = text.split("\n")
        yield from self._more(first)
        for other in others:
            yield from self._line_ends()
            yield from self._more(other)

    def end(self) -> Iterator[Block]:
        """The last block."""
        if self.rest:
            kind = "plain" if self._plain else "code" if self._fence else "markdown"
            if self._fence and self._closes(self._line):
                kind = "fence"
            yield Block(self.rest, kind)
        self.__init__()  # type: ignore[misc]  # as new

    def _more(self, text: str) -> Iterator[Block]:
        if self._plain:
            if text:
                yield Block(text, "plain")
            return
        self._line += text
        if self._size + len(self._line) > LONGEST_BLOCK:
            yield Block(self.rest, "plain")
            self._lines, self._line, self._size, self._plain = [], "", 0, True

    def _line_ends(self) -> Iterator[Block]:
        if self._plain:
            self._plain = False
            yield Block("\n", "plain")
            return
        line, self._line = f"{self._line}\n", ""
        if self._fence:
            closed = self._closes(line)
            self._fence = "" if closed else self._fence
            yield Block(line, "fence" if closed else "code")
            return
        self._lines.append(line)
        self._size += len(line)
        yield from self._finished()

    def _finished(self) -> Iterator[Block]:
        """What of the lines is certain: all before the last block, or before the last item of a list."""
        start, fence = _last(self.rest)
        head, self._lines = self._lines[:start], self._lines[start:]
        if head:
            yield Block("".join(head), "markdown")
        if fence:
            self._fence = fence
            yield Block("".join(self._lines), "fence")
            self._lines = []
        self._size = sum(map(len, self._lines))

    def _closes(self, line: str) -> bool:
        mark = re.escape(self._fence[0])
        return re.fullmatch(rf" {{0,3}}{mark}{{{len(self._fence)},}}\s*", line) is not None


def _last(text: str) -> tuple[int, str]:
    """The line in which the last block begins, and what opens it where it is a code block."""
    start, fence = 0, ""
    for token in _parser().parse(text):
        top = token.level == 0 or (token.type == "list_item_open" and token.level == 1)
        if top and token.map and token.nesting >= 0:
            start = token.map[0]
            fence = token.markup if token.type == "fence" else ""
    return start, fence


@cache
def _parser() -> MarkdownIt:
    parser = markdown_parser()
    return parser.disable(["inline", "text_join"])


def markdown_parser() -> MarkdownIt:
    """Markdown as models write it. HTML is text, and so are definitions of links: both would not be shown at all."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable(["reference"])
