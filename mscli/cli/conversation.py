"""The conversation on a terminal: line history, several lines, images, and commands that begin with a slash."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from mscli.chat import message
from mscli.chat.message import Message
from mscli.chat.reply import Target
from mscli.cli.chat import say
from mscli.cli.screen import Screen
from mscli.errors import MscliError
from mscli.paths import places

_HELP = """/image FILE   send an image with the next message      /reset   begin anew
/system TEXT  set the system prompt and begin anew     /bye     leave (or Ctrl-D)
\"\"\"           begins and ends a message of several lines; Ctrl-C stops a reply"""


def converse(screen: Screen, target: Target, opening: list[Message], images: tuple[Path, ...]) -> None:
    """Read, ask, print, until the user leaves. A fault in one turn does not end the conversation."""
    screen.note(f"talking to {target.model} ({target.name}); /help for commands, Ctrl-D to leave", "dim")
    talk = _Talk(screen, target, opening, images)
    with _history():
        while (line := _read()) is not None:
            if not talk.take(line):
                return


class _Talk:
    """The conversation so far."""

    def __init__(self, screen: Screen, target: Target, opening: list[Message], images: tuple[Path, ...]) -> None:
        self._screen, self._target = screen, target
        self._messages, self._images = list(opening), images

    def take(self, line: str) -> bool:
        """Act on what the user typed; False when the conversation is over."""
        word, _, rest = line.strip().partition(" ")
        if word in ("/bye", "/exit", "/quit"):
            return False
        try:
            self._command(word, rest) if word.startswith("/") else self._ask(line)
        except MscliError as fault:
            self._screen.error(fault)
        return True

    def _command(self, word: str, rest: str) -> None:
        if word == "/reset":
            self._messages = [item for item in self._messages if item["role"] == "system"]
        elif word == "/system":
            self._messages = [message.system(rest)] if rest else []
        elif word == "/image":
            paths = tuple(Path(part) for part in shlex.split(rest))
            for path in paths:
                message.data_url(path)  # a wrong path is told now, not with the next message
            self._images += paths
        else:
            self._screen.note(_HELP)

    def _ask(self, line: str) -> None:
        if not line.strip():
            return
        turn = message.user(line, self._images)
        try:
            reply = say(self._screen, self._target, [*self._messages, turn], thinking=True)
        except KeyboardInterrupt:
            self._screen.note("\n(stopped)")
            return
        self._images = ()
        self._messages += [turn, message.assistant(reply.text)]


def _read() -> str | None:
    """One message of the user, or None at the end. Ctrl-C on an empty line asks again."""
    try:
        line = input(">>> ")
        if not line.startswith('"""'):
            return line
        lines = [line[3:]]
        while not lines[-1].rstrip().endswith('"""'):
            lines.append(input("... "))
        return "\n".join(lines).rstrip().removesuffix('"""')
    except EOFError:
        sys.stdout.write("\n")
        return None
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        return ""


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Line editing with the history of earlier conversations, kept private."""
    import readline

    path = places().history
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.set_history_length(2000)
            readline.write_history_file(path)
            path.chmod(0o600)
