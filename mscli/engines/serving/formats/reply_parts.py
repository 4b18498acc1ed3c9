"""A reply as OpenAI's responses and Anthropic's messages tell it: thoughts, text and calls, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mscli.engines.serving.formats.chunks import Chunk

THOUGHTS, TEXT, CALL = "thoughts", "text", "call"
BEGIN, GROW, END = "begin", "grow", "end"


@dataclass
class Part:
    """`key`: the kind, and of a call its number too. `id` and `name` are a call's, its text the arguments."""

    kind: str
    number: int
    key: tuple[str, int]
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self.pieces)


Step = tuple[str, Part, str]  # what happens to a part, and what is added to it


class Parts:
    """What the chunks of one choice add up to. `usage` as the engine tells it."""

    def __init__(self) -> None:
        self.all: list[Part] = []
        self.finish: str | None = None
        self.usage: Mapping[str, Any] = {}
        self._open = False

    def feed(self, made: Chunk) -> Iterator[Step]:
        """The steps that a chunk makes."""
        self.usage = made.get("usage") or self.usage
        for choice in made.get("choices") or ():
            delta = choice.get("delta") or {}
            yield from self._grow(THOUGHTS, delta.get("reasoning_content") or delta.get("reasoning") or "")
            yield from self._grow(TEXT, delta.get("content") or "")
            for call in delta.get("tool_calls") or ():
                function = call.get("function") or {}
                named = (call.get("id") or "", function.get("name") or "")
                yield from self._grow(CALL, function.get("arguments") or "", call.get("index", 0), *named)
            self.finish = choice.get("finish_reason") or self.finish

    def end(self) -> Iterator[Step]:
        """The end of the part that is still open."""
        if self._open:
            self._open = False
            yield END, self.all[-1], ""

    def tokens(self, name: str) -> int:
        """A number of tokens, 0 where the engine tells none: both APIs need one."""
        return self.usage.get(name) or 0

    def _grow(self, kind: str, piece: str, number: int = 0, id: str = "", name: str = "") -> Iterator[Step]:
        if not piece and kind != CALL:
            return
        if not self._open or self.all[-1].key != (kind, number):
            yield from self.end()
            part = Part(kind, len(self.all), (kind, number), id or f"call_{len(self.all)}", name)
            self.all.append(part)
            self._open = True
            yield BEGIN, part, ""
        if piece:
            self.all[-1].pieces.append(piece)
            yield GROW, self.all[-1], piece
