"""The only printer: data to standard output, everything else to standard error, JSON in one versioned envelope.

What is printed is text and never markup, without control sequences. A stream that is closed or full does not end the
work of a command: what could not be written is remembered, and the exit code says so when the work is done.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from mscli.cli.layout import Column, Line, clipped, styled, table, wrapped
from mscli.errors import Code, MscliError
from mscli.untrusted import clean

if TYPE_CHECKING:
    import typer

SCHEMA = "mscli/1"
_CODES = {
    "bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36",
}  # fmt: skip
_PLAIN = str.maketrans({"█": "#", "░": ".", "✓": "+", "✗": "x", "…": "~", "·": "."})  # for terminals without Unicode
_C1 = {number: f"\\u{number:04x}" for number in range(0x7F, 0xA0)}


class Screen:
    """Where one command shows its result. `json_mode`: exactly one JSON object on standard output and nothing else."""

    def __init__(self, command: str, json_mode: bool) -> None:
        self.command = command
        self.json_mode = json_mode
        self.lost: OSError | None = None
        """Why standard output did not take what was written; None as long as it took everything."""
        self._answered = False

    @property
    def live(self) -> bool:
        """True where moving progress can be shown: standard error is a terminal and no JSON was asked for."""
        return not self.json_mode and _terminal(sys.stderr) and os.environ.get("TERM") != "dumb"

    @property
    def width(self) -> int | None:
        """The columns of the terminal that shows the data; None where it is a file or a pipe: lines of any length."""
        return _columns(sys.stdout)

    @property
    def height(self) -> int:
        """The rows of the terminal that shows the data; 24 where nobody tells."""
        try:
            return os.get_terminal_size(sys.stdout.fileno()).lines or 24
        except (OSError, ValueError, AttributeError):
            return 24

    @property
    def renders(self) -> bool:
        """Whether standard output is a terminal that shows styles and moves its cursor."""
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        return not self.json_mode and _terminal(sys.stdout) and not plain

    @property
    def live_width(self) -> int | None:
        """The columns of the terminal that shows moving progress; None where there is none."""
        return _columns(sys.stderr)

    def data(self, data: object) -> None:
        """Print the envelope of a command that did what it was asked; `data` may hold frozen values and paths."""
        self._envelope({"ok": True, "data": data})

    def event(self, event: dict[str, object]) -> None:
        """Print one event of something that goes on, as a JSON line of its own, at once."""
        self._json({"schema": SCHEMA, "command": self.command, **event})
        self.flush()

    def rows(self, head: dict[str, object], name: str, rows: Iterable[object]) -> None:
        """Print the envelope as `data` does, `head` with a last field `name` that lists `rows`: one at a time, so that
        a list of any length takes no memory."""
        start = _dumped({"schema": SCHEMA, "command": self.command, "ok": True, "data": {**head, name: []}})
        self._write(start[:-3])
        for number, row in enumerate(rows):
            self._write((", " if number else "") + _dumped(row))
        self._write("]}}\n")
        self._answered = True

    def text(self, text: str) -> None:
        """Print plain text as data, as it is."""
        text = clean(text)
        self._write(text if text.endswith("\n") else text + "\n")

    def line(self, *parts: str) -> None:
        """Print one line as data, unwrapped; parts that are Styled in colour on a terminal that has it."""
        self._write(_painted(parts, sys.stdout) + "\n")

    def lines(self, lines: Iterable[Line]) -> None:
        """Print lines as data."""
        for parts in lines:
            self.line(*parts)

    def paragraph(self, text: str, indent: str = "", hanging: str | None = None, style: str = "") -> None:
        """Print text as data, in lines that fit the terminal; in one line where there is none."""
        for line in wrapped(clean(text), self.width, indent, hanging):
            self.line(styled(line, style))

    def fields(self, rows: Sequence[tuple[str, str]], indent: str = "  ") -> None:
        """Print names with their values as data, aligned, long values below each other; empty values are left out."""
        shown = [row for row in rows if row[1]]
        longest = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            head = f"{indent}{name:<{longest}}  "
            for number, line in enumerate(wrapped(clean(value), self.width, " " * len(head))):
                rest = line[len(head) :]
                self.line(styled(head, "dim") if not number else " " * len(head), styled(rest, _style(value)))

    def laid_out(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[Line]:
        """The lines of a table for this terminal: its heads, then one for each row; in blocks where it is narrow."""
        return table(columns, [[_cleaned(text) for text in row] for row in rows], self.width)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under column heads as data; where the terminal is narrow, the less important columns go."""
        self.lines(self.laid_out(columns, rows))

    def piece(self, text: str) -> None:
        """Print a piece of streamed data at once, without a line end."""
        self._write(clean(text))
        self.flush()

    def drawn(self, text: str) -> None:
        """Print text on a terminal at once as it is: its control sequences are mscli's own, and others were removed."""
        self._write(text)
        self.flush()

    def aside(self, text: str, style: str = "") -> None:
        """Print a piece of streamed text beside the data, on standard error, without a line end."""
        _write(sys.stderr, _painted([styled(text, style)], sys.stderr), flush=True)

    def moving(self, text: str) -> None:
        """Draw the one moving line of a terminal anew, cut to its width; with no text, erase it."""
        line = clipped(clean(text).replace("\n", " "), (_columns(sys.stderr) or 80) - 1)
        _write(sys.stderr, f"\r{line}\x1b[K", flush=True)

    @contextmanager
    def whole(self) -> Iterator[Callable[[], object]]:
        """The whole terminal, for what is shown again and again: call the value before each drawing. At the end the
        terminal is as it was before."""
        _write(sys.stdout, "\x1b[?1049h\x1b[?25l", flush=True)
        try:
            yield lambda: _write(sys.stdout, "\x1b[H\x1b[J")
        finally:
            _write(sys.stdout, "\x1b[?25h\x1b[?1049l", flush=True)

    def note(self, text: str, style: str = "") -> None:
        """Say something beside the data, on standard error; nothing with --json."""
        if not self.json_mode:
            self._say(text, style)

    def error(self, fault: MscliError) -> None:
        """Report a fault: in the envelope with --json, else what happened, the evidence and what to type next.

        Where the one JSON object is out already, a later fault is told to people: a Ctrl-C for example.
        """
        if self.json_mode and not self._answered:
            error = {"code": fault.code.value, "message": fault.message, "hint": fault.hint}
            self._envelope({"ok": False, "error": {**error, "details": fault.details} if fault.details else error})
            return
        self._say(f"error: {fault.message}", "bold red")
        evidence = fault.details.get("evidence")
        for line in evidence if isinstance(evidence, list) else ():
            self._say(f"  | {line}", "dim", "    ")
        if fault.hint:
            self._say(fault.hint, "cyan")

    def confirm(self, question: str, default: bool) -> bool:
        """Ask on the terminal and wait for an answer. Raises INTERRUPTED at the end of input."""
        while True:
            self.aside(f"{question} [{'Y/n' if default else 'y/N'}] ")
            answer = sys.stdin.readline() if sys.stdin else ""
            if not answer:
                raise MscliError(Code.INTERRUPTED, "no answer: standard input is closed")
            if (word := answer.strip().lower()) in ("", "y", "yes", "n", "no"):
                return default if not word else word[0] == "y"

    def flush(self) -> None:
        """Hand what was printed to whoever reads it. Never raises: see `lost`."""
        if sys.stdout is not None and self.lost is None:
            self.lost = _write(sys.stdout, "", flush=True)

    def _envelope(self, body: dict[str, Any]) -> None:
        self._json({"schema": SCHEMA, "command": self.command, **body})
        self._answered = True

    def _json(self, value: dict[str, Any]) -> None:
        self._write(_dumped(value) + "\n")

    def _say(self, text: str, style: str, hanging: str = "  ") -> None:
        for number, line in enumerate(clean(text).split("\n")):
            indent = " " * (len(line) - len(line.lstrip()))
            later = indent + ("" if number else hanging)
            for each in wrapped(line.lstrip(), _columns(sys.stderr), indent, later):
                _write(sys.stderr, _painted([styled(each, style)], sys.stderr) + "\n", flush=True)

    def _write(self, text: str) -> None:
        if self.lost is None:
            self.lost = _write(sys.stdout, text)


def open_screen(ctx: typer.Context, json_mode: bool) -> Screen:
    """The screen of the running command, named by its full path ("profiles show")."""
    words: list[str] = []
    node: typer.Context | None = ctx
    while node is not None and node.parent is not None:
        words.insert(0, node.info_name or "")
        node = node.parent  # type: ignore[assignment]  # the parent of a Typer context is one too
    screen = ctx.obj if isinstance(ctx.obj, Screen) else Screen("", json_mode)
    screen.command, screen.json_mode = " ".join(words), json_mode
    return screen


def plain(value: object) -> object:
    """What json.dumps is to write for a value that it does not know: a frozen value's fields by name, a path's text."""
    from mscli.frozen import fields, is_frozen

    if is_frozen(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _dumped(value: object) -> str:
    """JSON in one line; characters that would steer a terminal, or that no stream can encode, as escapes."""
    text = json.dumps(value, ensure_ascii=False, default=plain)
    if text.isascii():
        return text.replace("\x7f", "\\u007f")
    text = text.translate(_C1)
    return text if _encodable(text) else json.dumps(value, default=plain)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _cleaned(text: str) -> str:
    return styled(clean(text).replace("\n", " "), _style(text))


def _style(text: str) -> str:
    return str(getattr(text, "style", ""))


def _painted(parts: Iterable[str], stream: TextIO | None) -> str:
    """The parts as one string without control sequences but those of their styles."""
    colour = _terminal(stream) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    painted = []
    for part in parts:
        text, style = clean(part), _style(part)
        codes = ";".join(_CODES[word] for word in style.split())
        painted.append(f"\x1b[{codes}m{text}\x1b[0m" if colour and codes and text.strip() else text)
    return "".join(painted)


def _write(stream: TextIO | None, text: str, flush: bool = False) -> OSError | None:
    """Write to a stream; the fault that kept it from taking the text, or None. A stream's encoding never fails."""
    if stream is None:
        return OSError(errno.EBADF, "it is closed")
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.translate(_PLAIN).encode(encoding, "replace").decode(encoding))
        if flush:
            stream.flush()
    except OSError as fault:
        return fault
    except ValueError as fault:  # the stream was closed by this process
        return OSError(errno.EBADF, str(fault))
    return None


def _terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _columns(stream: TextIO | None) -> int | None:
    if stream is None or not _terminal(stream):
        return None
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
