"""Pastes of any size: read without growing slower, and a long one stands in the line as a mark until it is sent."""

from __future__ import annotations

from collections.abc import Callable

from prompt_toolkit.input.base import Input
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

from mscli.chat.message import MAX_TEXT_BYTES

# A longer one is not edited: prompt_toolkit lays out all of a line with each key.
LONGEST_EDITED = 20_000
LEFT_OUT = "[a paste larger than 16 MiB was left out]"
_KEPT_BACK = 16  # as much as the mark of a paste's end may be cut


class Pastes:
    """The long pastes of one conversation."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def shown(self, text: str) -> str:
        """What is put into the line for a paste: the paste itself, or a mark."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if len(text) <= LONGEST_EDITED:
            return text
        if len(text) > MAX_TEXT_BYTES:
            return LEFT_OUT
        mark = f"[paste {len(self._texts) + 1}: {len(text):,} characters]"
        self._texts[mark] = text
        return mark

    def whole(self, line: str) -> str:
        """The line with the pastes in place of their marks."""
        for mark, text in self._texts.items():
            line = line.replace(mark, text)
        return line


class _Parser(Vt100Parser):
    """prompt_toolkit's parser, which copies a paste anew with each KiB of it: a paste of 100 MB would take hours."""

    def __init__(self, heard: Callable[[KeyPress], None]) -> None:
        super().__init__(self._pressed)
        self._heard = heard
        self._parts: list[str] = []
        self._size = 0

    def feed(self, data: str) -> None:
        """Take what was typed."""
        if self._in_bracketed_paste and len(self._paste_buffer) > _KEPT_BACK:
            self._keep(self._paste_buffer[:-_KEPT_BACK])
            self._paste_buffer = self._paste_buffer[-_KEPT_BACK:]
        super().feed(data)

    def _keep(self, text: str) -> None:
        self._size += len(text)
        if self._size <= MAX_TEXT_BYTES + 1:
            self._parts.append(text)

    def _pressed(self, press: KeyPress) -> None:
        if press.key == Keys.BracketedPaste:
            self._keep(press.data)
            too_long = "x" * (MAX_TEXT_BYTES + 1) if self._size > MAX_TEXT_BYTES else ""
            press = KeyPress(Keys.BracketedPaste, too_long or "".join(self._parts))
            self._parts, self._size = [], 0
        self._heard(press)


def reads_long_pastes(source: Input) -> Input:
    """The input, with a parser that takes pastes of any size."""
    if isinstance(source, Vt100Input):
        source.vt100_parser = _Parser(source.vt100_parser.feed_key_callback)
    return source
