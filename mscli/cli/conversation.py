"""A conversation on a terminal: input with history and completion, slash commands, and what each reply cost."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPressEvent

from mscli.chat import message
from mscli.chat.message import Message
from mscli.cli.layout import count
from mscli.cli.reply_view import say
from mscli.cli.screen import Screen
from mscli.errors import Code, MscliError
from mscli.paths import places

if TYPE_CHECKING:
    from mscli.chat.reply import Reply, Target

# From this share of the context on a conversation will soon not fit any more.
NEARLY_FULL = 0.85
COMMANDS = {  # but for /help and /bye, each is the method of its name in Talk
    "/help": "show this list",
    "/image": "FILE ...: send images with the next message",
    "/file": "FILE ...: send text files with the next message",
    "/retry": "ask the last message again",
    "/undo": "remove the last message and its reply",
    "/clear": "start over",
    "/system": "TEXT: set the system prompt and start over",
    "/set": "temperature, top_p or max_tokens: change it for the next replies",
    "/think": "on or off: show the reasoning",
    "/stats": "show replies, tokens and speed so far",
    "/bye": "quit (or Ctrl-D)",
}
_OTHERS_WORDS = {"/reset": "/clear", "/exit": "/bye", "/quit": "/bye", "/?": "/help", "/save": "/help"}
_KEYS = "Alt-Enter: a new line. Ctrl-R: search the history. Ctrl-X Ctrl-E: $EDITOR. Ctrl-C: stop a reply."


def converse(
    screen: Screen, target: Target, opening: list[Message], images: tuple[Path, ...], think: bool, raw: bool
) -> None:
    """Read, ask, print, until the user leaves. A fault in one turn does not end the conversation.

    `think`: whether the reasoning is shown; `raw`: Markdown as it is.
    """
    screen.note(f"talking to {target.model} ({target.name}); /help for commands, Ctrl-D to quit", "dim")
    talk = Talk(screen, target, opening, images, think, raw)
    for line in _lines(screen):
        if not talk.take(line):
            return


class Talk:
    """The conversation so far."""

    def __init__(
        self, screen: Screen, target: Target, opening: list[Message], images: tuple[Path, ...], think: bool, raw: bool
    ) -> None:
        self._screen, self._target, self._thinking, self._raw = screen, target, think, raw
        self._messages, self._images, self._files = list(opening), images, tuple[Path, ...]()
        self._last: Message | None = None
        self._replies: list[Reply] = []

    def take(self, line: str) -> bool:
        """Act on what the user typed; False when the conversation is over."""
        word, _, rest = line.strip().partition(" ")
        word = _OTHERS_WORDS.get(word, word)
        if word == "/bye":
            return False
        try:
            if word.startswith("/") and "/" not in word[1:]:
                self._command(word, rest.strip())
            elif line.strip():
                self._ask(self._turn(line))
        except MscliError as fault:
            self._screen.error(fault)
        return True

    def _command(self, word: str, rest: str) -> None:
        if word in COMMANDS and word != "/help":
            getattr(self, f"_{word[1:]}")(rest)
            return
        if word != "/help":
            self._screen.note(f"unknown command {word}", "yellow")
        width = max(map(len, COMMANDS))
        self._screen.note("\n".join(f"{name:{width}}  {meaning}" for name, meaning in COMMANDS.items()) + f"\n{_KEYS}")

    def _turn(self, line: str) -> Message:
        """The user's turn, with the files and images that were named before it."""
        text = "\n\n".join([line, *map(message.text_file, self._files)])
        turn = message.user(text, self._images)
        self._images, self._files = (), ()
        return turn

    def _ask(self, turn: Message) -> None:
        self._last = turn
        try:
            reply = say(self._screen, self._target, [*self._messages, turn], self._thinking, self._raw)
        except KeyboardInterrupt:
            self._screen.note("\n(stopped; /retry asks again)")
            return
        self._messages += [turn, message.assistant(reply.text)]
        self._replies.append(reply)
        self._screen.note(cost(reply, self._target.context), "dim")
        if self._target.context and used(reply) >= NEARLY_FULL * self._target.context:
            self._screen.note("the context is nearly full: /undo drops the last turn, /clear starts over", "yellow")

    def _retry(self, _rest: str) -> None:
        if self._last is None:
            self._screen.note("nothing has been asked yet")
            return
        last = self._last
        if len(self._messages) > 1 and self._messages[-2] is last:
            del self._messages[-2:]
        self._ask(last)

    def _undo(self, _rest: str) -> None:
        if not any(item["role"] == "user" for item in self._messages):
            self._screen.note("nothing to undo")
            return
        del self._messages[-2:]
        self._last = None
        self._screen.note("removed the last message and its reply")

    def _clear(self, _rest: str) -> None:
        self._messages = [item for item in self._messages if item["role"] == "system"]
        self._last = None

    def _system(self, text: str) -> None:
        self._messages, self._last = [message.system(text)] if text else [], None

    def _image(self, rest: str) -> None:
        paths = _paths(rest)
        for path in paths:
            message.data_url(path)  # a wrong path is told now, not with the next message
        self._images += paths

    def _file(self, rest: str) -> None:
        paths = _paths(rest)
        for path in paths:
            message.text_file(path)
        self._files += paths

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        kinds = {"temperature": float, "top_p": float, "max_tokens": int}
        try:
            number = kinds[name](value)
        except (KeyError, ValueError):
            raise MscliError(
                Code.USAGE,
                f"cannot set {rest!r}",
                "Type /set temperature 0.3, top_p 0.9 or max_tokens 200.",
            ) from None
        if number < 0 or (name == "max_tokens" and number < 1) or (name == "top_p" and number > 1):
            raise MscliError(Code.USAGE, f"{name} can't be {value}", "Type /set temperature 0.3, for example.")
        self._target = replace(self._target, sampling=replace(self._target.sampling, **{name: number}))

    def _think(self, rest: str) -> None:
        self._thinking = rest != "off"
        self._screen.note(f"reasoning {'shown' if self._thinking else 'not shown'}")

    def _stats(self, _rest: str) -> None:
        written = sum(reply.completion_tokens or 0 for reply in self._replies)
        seconds = sum(reply.seconds for reply in self._replies)
        self._screen.note(
            f"{count(len(self._replies), 'reply', 'replies')}, {count(written, 'token')}, {seconds:.1f} s"
        )
        if self._replies:
            self._screen.note(cost(self._replies[-1], self._target.context))


def used(reply: Reply) -> int:
    """Tokens of the context that the conversation takes after this reply; 0 where the server told none."""
    return (reply.prompt_tokens or 0) + (reply.completion_tokens or 0)


def cost(reply: Reply, context: int | None) -> str:
    """What a reply took: tokens, speed, time to the first, and how much of the context is used now."""
    parts = [count(reply.completion_tokens, "token")] if reply.completion_tokens else []
    if reply.tokens_per_second:
        parts.append(f"{reply.tokens_per_second:.1f} tok/s")
    if reply.ttft_s is not None:
        parts.append(f"first token {reply.ttft_s:.2f} s")
    if (tokens := used(reply)) and context:
        parts.append(f"context {tokens:,} of {context:,} ({tokens / context:.0%})")
    return ", ".join(parts) or f"{reply.seconds:.1f} s"


def _paths(words: str) -> tuple[Path, ...]:
    """The files named behind a command. Raises USAGE for none, or for a quote that does not end."""
    try:
        named = tuple(Path(word) for word in shlex.split(words))
    except ValueError as fault:
        raise MscliError(Code.USAGE, f"{words}: {fault}", "Quote a path with blanks: '/a path/b.png'") from None
    if not named:
        raise MscliError(Code.USAGE, "no file given", "Type the path after it.")
    return named


def _lines(screen: Screen) -> Iterator[str]:
    """What the user types, message by message. Ctrl-C drops a line; twice, it leaves."""
    session: PromptSession[str] = PromptSession(
        history=_history(), completer=_Words(), complete_while_typing=False, multiline=True, key_bindings=_bindings(),
        prompt_continuation="... ", enable_open_in_editor=True, editing_mode=_editing_mode(), mouse_support=False,
    )  # fmt: skip
    idle = False
    while True:
        try:
            line = session.prompt(">>> ")
        except EOFError:
            return
        except KeyboardInterrupt:
            if idle:
                return
            idle = True
            screen.note("(Ctrl-C again quits)", "dim")
            continue
        idle = False
        yield line


def _bindings() -> KeyBindings:
    """Enter sends; a paste of several lines is one message, since it comes as a paste and not as keys."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

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
    """Commands, and paths behind those that take files."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        typed = document.text_before_cursor
        word, blank, rest = typed.partition(" ")
        if not blank and typed.startswith("/"):
            yield from (
                Completion(name, start_position=-len(typed), display_meta=COMMANDS[name])
                for name in COMMANDS
                if name.startswith(typed)
            )
        elif word in ("/image", "/file"):
            last = rest.rpartition(" ")[2]
            yield from self._paths.get_completions(Document(last, len(last)), event)
