"""Splitting a reply into what was thought and what is answered.

Engines differ: llama.cpp says `reasoning_content`, vLLM `reasoning`, and Magistral 2506 writes plain <think> text
into the answer because its system prompt asks for it. The splitter handles the last, piece by piece.
"""

from __future__ import annotations

from dataclasses import dataclass

_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Piece:
    """A piece of a reply: thought, or (`thought` False) answered."""

    text: str
    thought: bool


class ThinkSplitter:
    """Takes the reply's text as it streams in; a tag may be cut anywhere between two pieces."""

    def __init__(self) -> None:
        self._held = ""
        self._thinking = False

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are certain so far; what may be the beginning of a tag is kept back."""
        self._held += text
        pieces: list[Piece] = []
        while (tag := self._tag()) in self._held:
            before, _, self._held = self._held.partition(tag)
            self._add(pieces, before)
            self._thinking = not self._thinking
        keep = self._possible_tag()
        self._add(pieces, self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]
        return pieces

    def end(self) -> list[Piece]:
        """What was kept back, when no more text comes."""
        pieces: list[Piece] = []
        self._add(pieces, self._held)
        self._held = ""
        return pieces

    def _tag(self) -> str:
        return _CLOSE if self._thinking else _OPEN

    def _possible_tag(self) -> int:
        """How many characters at the end could be the beginning of the next tag."""
        tag = self._tag()
        return next((n for n in range(len(tag) - 1, 0, -1) if self._held.endswith(tag[:n])), 0)

    def _add(self, pieces: list[Piece], text: str) -> None:
        if text:
            pieces.append(Piece(text, self._thinking))
