"""How a start and a pull are shown while they go on: a moving line on a terminal, plain lines when piped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING

from mscli.cli.screen import Screen
from mscli.cli.size import ago, size

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from mscli.lifecycle.eta import Forecast
    from mscli.lifecycle.learning import Heal
    from mscli.weights.progress import Note, Progress

_PIPED_EVERY_S = 5.0
_WORTH_FORETELLING_S = 5.0


class StartProgress:
    """The listener of a start. Silent with --json. Use as a context manager: it leaves the terminal as it was."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._begun = time.monotonic()
        self._spoke = 0.0
        self._stage = ""
        self._forecast: Forecast | None = None

    def __enter__(self) -> StartProgress:
        if self._screen.live:
            self._bar = _moving_line(self._outlook)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def agree(self, missing_bytes: int) -> bool:
        """Ask before a large download. The moving line rests meanwhile, or it would write over the question."""
        import typer

        if self._bar is not None:
            self._bar.stop()
        try:
            return typer.confirm(f"{size(missing_bytes)} will be downloaded. Go on?", default=True, err=True)
        finally:
            if self._bar is not None:
                self._bar.start()

    def stage(self, stage: str, text: str) -> None:
        """Show that a stage began; the one before it is done."""
        self._stage = stage
        line = f"{stage:<9}{text}"
        if self._bar is None:
            outlook = self._outlook()
            self._screen.note(f"{line}; {outlook}" if outlook else line)
            return
        self._bar.console.print(f"[green]{ago(time.monotonic() - self._begun):>7}[/]  {line}", highlight=False)
        self._show(text, None, None)

    def heal(self, heal: Heal, number: int, most: int) -> None:
        """Show what is changed after a start that failed."""
        self.stage("healing", f"{heal.why}; trying again ({number} of {most}): {heal.change}")

    def forecast(self, forecast: Forecast | None) -> None:
        """Show from now on how long it will take, if it goes as the last start did."""
        self._forecast = forecast

    def _outlook(self) -> str:
        """How much longer it will take, in words; empty where nothing is known."""
        if self._forecast is None or self._forecast.last_s < _WORTH_FORETELLING_S:
            return ""
        last = f"last start took {ago(self._forecast.last_s)}"
        left = self._forecast.left_s()
        return f"{last}; this one takes longer" if left is None else f"about {ago(left)} left ({last})"

    def log_line(self, line: str) -> None:
        """Show the engine's last word behind the stage, on a terminal only."""
        if self._bar is not None and line.strip():
            self._show(f"{self._stage}: {line.strip()[:90]}", None, None)

    def progress(self, progress: Progress) -> None:
        """Show how far a pull has come."""
        eta = f", {ago(progress.eta_s)} to go" if progress.eta_s is not None else ""
        speed = f" at {size(int(progress.speed))}/s" if progress.speed else ""
        text = f"{progress.stage} {size(progress.done_bytes)} of {size(progress.total_bytes)}{speed}{eta}"
        if self._bar is not None:
            self._show(f"{text}  {progress.file or ''}", progress.done_bytes, progress.total_bytes)
        elif time.monotonic() - self._spoke > _PIPED_EVERY_S:
            self._spoke = time.monotonic()
            self._screen.note(f"{self._stage:<9}{text}")

    def note(self, note: Note) -> None:
        """Show a line about the pull."""
        if self._bar is not None:
            self._bar.console.print(f"         {note.message}", style="yellow", highlight=False)
        else:
            self._screen.note(note.message)

    def _show(self, text: str, done: int | None, total: int | None) -> None:
        if self._bar is None:
            return
        if self._task is None:
            self._task = self._bar.add_task(text, total=None)
        self._bar.update(self._task, description=text, completed=done or 0, total=total)


class EventProgress:
    """The listener of a start for scripts: one JSON line per event, before the result's own line."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._forecast: Forecast | None = None

    def __enter__(self) -> EventProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to leave behind."""

    def stage(self, stage: str, text: str) -> None:
        """A stage began; `eta_s` where an earlier start tells how long it will take."""
        left = self._forecast.left_s() if self._forecast else None
        eta = {} if left is None else {"eta_s": round(left, 1)}
        self._screen.event({"event": "stage", "stage": stage, "text": text, **eta})

    def forecast(self, forecast: Forecast | None) -> None:
        """How long it will take, for the stages from now on."""
        self._forecast = forecast

    def heal(self, heal: Heal, number: int, most: int) -> None:
        """A start failed, and another follows with something changed."""
        self._screen.event({"event": "heal", "number": number, "most": most, **asdict(heal)})

    def agree(self, _: int) -> bool:
        """Scripts are never asked."""
        return True

    def log_line(self, line: str) -> None:
        """A line of the engine's log."""
        self._screen.event({"event": "log", "line": line})

    def progress(self, progress: Progress) -> None:
        """How far a pull has come."""
        self._screen.event({"event": "progress", **asdict(progress)})

    def note(self, note: Note) -> None:
        """A line about the pull."""
        self._screen.event({"event": "note", **asdict(note)})


Hears = StartProgress | EventProgress


def listener_of(screen: Screen, events: bool) -> Hears:
    """The listener that suits the screen."""
    return EventProgress(screen) if events else StartProgress(screen)


def _moving_line(outlook: Callable[[], str]) -> Bar:
    """A line that is drawn anew several times a second, with `outlook`'s words of that moment."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
    from rich.table import Column
    from rich.text import Text

    class Outlook(ProgressColumn):
        def render(self, task: Task) -> Text:  # noqa: ARG002 (it is the same for every task)
            return Text(outlook(), style="cyan")

    words = Outlook(Column(no_wrap=True))
    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (SpinnerColumn(), BarColumn(20), TimeElapsedColumn(), words, text)
    return Progress(*columns, console=Console(stderr=True), transient=True)
