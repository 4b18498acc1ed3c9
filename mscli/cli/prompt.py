"""Where a user types in a conversation: several lines, pastes, history, completion, $EDITOR, by prompt_toolkit.

Pastes of any size are read without growing slower, and a long one stands in the line as a mark until it is sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER, EditingMode
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.input import create_input
from prompt_toolkit.input.base import Input
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyBindings, KeyPress
from prompt_toolkit.key_binding.key_processor import KeyPressEvent
from prompt_toolkit.keys import Keys

from mscli.chat.message import MAX_TEXT_BYTES
from mscli.cli.screen import Screen
from mscli.paths import places

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


KEYS = "Alt-Enter: a new line. Ctrl-R: search the history. Ctrl-X Ctrl-E: $EDITOR. Ctrl-C: stop a reply."


class Prompt:
    """The prompt of one conversation. `commands`: each with what it does; `words`: what may follow a command."""

    def __init__(self, screen: Screen, commands: Mapping[str, str], words: Mapping[str, tuple[str, ...]]) -> None:
        self._screen = screen
        self._completer = _Words(commands, words)
        self._pastes = Pastes()
        self.leaving = False
        """Whether the next Ctrl-C leaves."""

    def lines(self) -> Iterator[str]:
        """What the user types, message by message. Ctrl-C drops a line; twice, it leaves, as Ctrl-D does."""
        session: PromptSession[str] = PromptSession(
            history=_history(), completer=self._completer, complete_while_typing=False, multiline=True,
            input=reads_long_pastes(create_input()), key_bindings=_bindings(self._pastes), prompt_continuation="... ",
            enable_open_in_editor=True, editing_mode=_editing_mode(), mouse_support=False,
        )  # fmt: skip
        while True:
            try:
                line = session.prompt(">>> ")
            except EOFError:
                return
            except KeyboardInterrupt:
                if self.leaving:
                    return
                self.leaving = True
                self._screen.note("(Ctrl-C again quits)", "dim")
                continue
            self.leaving = False
            if LEFT_OUT in line:
                self._screen.note("the paste is larger than 16 MiB: no context holds it. Send a part of it.", "yellow")
                continue
            yield self._pastes.whole(line)


def _bindings(pastes: Pastes) -> KeyBindings:
    """Enter sends; a paste of several lines is one message, since it comes as a paste and not as keys."""
    bindings = KeyBindings()

    @bindings.add("enter", filter=has_focus(DEFAULT_BUFFER))  # not where the history is searched
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=has_focus(DEFAULT_BUFFER))
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add(Keys.BracketedPaste, filter=has_focus(DEFAULT_BUFFER))
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(pastes.shown(event.data))

    return bindings


def _history() -> FileHistory | InMemoryHistory:
    """What was typed in earlier conversations, in a file of the user's alone."""
    path = places().history
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def _editing_mode() -> EditingMode:
    """vi's keys for those who have them in readline too."""
    named = os.environ.get("INPUTRC") or "~/.inputrc"
    try:
        settings = Path(named).expanduser().read_text(errors="replace")
    except (OSError, RuntimeError):
        settings = ""
    return EditingMode.VI if re.search(r"^\s*set\s+editing-mode\s+vi\b", settings, re.M) else EditingMode.EMACS


class _Words(Completer):
    """Commands, and behind them the words or the paths that they take."""

    def __init__(self, commands: Mapping[str, str], words: Mapping[str, tuple[str, ...]]) -> None:
        self._commands, self._words = commands, words
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        typed = document.text_before_cursor
        word, blank, rest = typed.partition(" ")
        if not blank and typed.startswith("/"):
            for name, meaning in self._commands.items():
                if name.startswith(typed):
                    yield Completion(name, start_position=-len(typed), display_meta=meaning)
        elif word in self._words:
            last = rest.rpartition(" ")[2]
            if not self._words[word]:
                yield from self._paths.get_completions(Document(last, len(last)), event)
            for each in self._words[word]:
                if each.startswith(last):
                    yield Completion(each, start_position=-len(last))
