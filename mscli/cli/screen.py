"""The only printer: data to standard output, everything else to standard error, JSON in one versioned envelope."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from mscli.errors import MscliError

if TYPE_CHECKING:
    import typer
    from rich.console import Console, RenderableType

SCHEMA = "mscli/1"
_PIPED_WIDTH = 400


class Screen:
    """Where one command shows its result. `json_mode`: exactly one JSON object on standard output and nothing else."""

    def __init__(self, command: str, json_mode: bool) -> None:
        self.command = command
        self.json_mode = json_mode

    @property
    def live(self) -> bool:
        """True where moving progress can be shown: standard error is a terminal and no JSON was asked for."""
        return not self.json_mode and sys.stderr.isatty()

    def data(self, data: object) -> None:
        """Print the envelope of a command that did what it was asked; `data` may hold dataclasses and paths."""
        self._envelope({"ok": True, "data": data})

    def event(self, event: dict[str, object]) -> None:
        """Print one event of something that goes on, as a JSON line of its own, at once."""
        sys.stdout.write(json.dumps({"schema": SCHEMA, "command": self.command, **event}, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def text(self, text: str) -> None:
        """Print plain text as data."""
        sys.stdout.write(text if text.endswith("\n") else text + "\n")

    def piece(self, text: str) -> None:
        """Print a piece of streamed data at once, without a line end."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def show(self, *renderables: RenderableType) -> None:
        """Print tables and the like as data; without colour and unwrapped where standard output is no terminal."""
        console = _console(sys.stdout)
        for renderable in renderables:
            console.print(renderable, highlight=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under column heads; the last column takes the space that is left."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column, overflow="fold", no_wrap=column != columns[-1])
        for row in rows:
            table.add_row(*row)
        self.show(table)

    def note(self, text: str, style: str = "") -> None:
        """Say something beside the data, on standard error; nothing with --json."""
        if not self.json_mode:
            _say(text, style)

    def error(self, fault: MscliError) -> None:
        """Report a fault: in the envelope with --json, else what happened, the evidence and what to type next."""
        if self.json_mode:
            error = {"code": fault.code.value, "message": fault.message, "hint": fault.hint}
            self._envelope({"ok": False, "error": {**error, "details": fault.details} if fault.details else error})
            return
        _say(f"error: {fault.message}", "bold red")
        evidence = fault.details.get("evidence")
        for line in evidence if isinstance(evidence, list) else ():
            _say(f"  | {line}", "dim")
        if fault.hint:
            _say(fault.hint, "cyan")

    def _envelope(self, body: dict[str, Any]) -> None:
        envelope = {"schema": SCHEMA, "command": self.command, **body}
        sys.stdout.write(json.dumps(envelope, ensure_ascii=False, default=plain) + "\n")


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
    """What json.dumps is to write for a value that it does not know: a dataclass's fields by name, a path's text."""
    from dataclasses import fields, is_dataclass

    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else _PIPED_WIDTH, soft_wrap=not stream.isatty())


def _say(text: str, style: str) -> None:
    if style and sys.stderr.isatty():
        from rich.markup import escape

        _console(sys.stderr).print(f"[{style}]{escape(text)}[/]", highlight=False, soft_wrap=True)
    else:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
