"""How a start and a pull are shown while they go on: one moving line on a terminal, plain lines when piped.

And what a gated repository wants of a user at a terminal meanwhile: its conditions accepted, and a token.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from mscli.cli.layout import ago, bar, size
from mscli.cli.screen import Screen
from mscli.errors import MscliError
from mscli.frozen import asdict

if TYPE_CHECKING:
    from mscli.lifecycle.first_install import Fetching
    from mscli.lifecycle.learning import Forecast, Heal
    from mscli.weights.progress import Note, Progress


_PIPED_EVERY_S = 5.0
_WORTH_FORETELLING_S = 5.0
_DRAWN_EVERY_S = 0.125
_FRAMES = "|/-\\"
_BAR, _LEAST_BAR = 20, 8
# Before these stages, and between two tries, no server of this start runs.
_BEFORE_THE_SERVER = ("", "plan", "install", "stopping", "weights", "retry")


class MovingLine:
    """One line of the terminal, drawn anew several times a second; what is said meanwhile goes above it.

    `text` gives its words for a width; it is called from a thread of its own. Draws nothing where there is no terminal.
    """

    def __init__(self, screen: Screen, text: Callable[[], str]) -> None:
        self._screen, self._text = screen, text
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to draw."""
        if self._screen.live and self._thread is None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Erase the line and draw no more; waits for the drawing of that moment."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None
            self._screen.moving("")

    def above(self, text: str, style: str = "") -> None:
        """Say something above the line."""
        with self._lock:
            self._screen.moving("")
            self._screen.note(text, style)

    def _run(self) -> None:
        number = 0
        while not self._ended.is_set():
            with self._lock:
                self._screen.moving(f"{_FRAMES[number % len(_FRAMES)]} {self._text()}")
            number += 1
            self._ended.wait(_DRAWN_EVERY_S)


class StartProgress:
    """The listener of a start. Silent with --json. Use as a context manager: it leaves the terminal as it was."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._line = MovingLine(screen, self._words)
        self._begun = self._stage_begun = time.monotonic()
        self._spoke = 0.0
        self._stage, self._now = "", ""
        self._pull: Progress | None = None
        self._forecast: Forecast | None = None

    def __enter__(self) -> StartProgress:
        self._line.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.stop()

    def agree(self, missing_bytes: int) -> bool:
        """Ask before a large download. The moving line rests meanwhile, or it would write over the question."""
        self._line.stop()
        try:
            return self._screen.confirm(f"{size(missing_bytes)} to download. Continue?", default=True)
        finally:
            self._line.start()

    def agree_all(self, fetching: Fetching) -> bool:
        """Ask once for all that a start is to fetch: engine and weights."""
        engine = fetching.engine
        self._line.stop()
        try:
            self._screen.note(f"{engine.what} is not installed. To start, mscli downloads:", "bold")
            self._screen.note(f"  engine   {engine.what}, about {size(engine.download_bytes)}, into {engine.folder}")
            if fetching.weights_bytes:
                weights = f"{fetching.weights}, {size(fetching.weights_bytes)}, into {fetching.weights_folder}"
                self._screen.note(f"  weights  {weights}")
            self._screen.note(f"  disk     {size(fetching.free_bytes)} free")
            return self._screen.confirm("Continue?", default=True)
        finally:
            self._line.start()

    @property
    def started(self) -> bool:
        """Whether a server was started, as far as the stages tell."""
        return self._stage not in _BEFORE_THE_SERVER

    def stage(self, stage: str, text: str) -> None:
        """Show that a stage began; the one before it is done."""
        self._stage, self._now, self._pull, self._stage_begun = stage, text, None, time.monotonic()
        line = f"{stage:<9}{text}"
        if self._screen.live:
            self._line.above(f"{ago(time.monotonic() - self._begun):>7}  {line}")
        else:
            outlook = self._outlook()
            self._screen.note(f"{line}; {outlook}" if outlook else line)

    def heal(self, heal: Heal, number: int, most: int) -> None:
        """Show what is changed after a start that failed."""
        self.stage("retry", f"{number} of {most}: {heal.change} ({heal.why})")

    def forecast(self, forecast: Forecast | None) -> None:
        """Show from now on how long it will take, if it goes as the last start did."""
        self._forecast = forecast

    def log_line(self, line: str) -> None:
        """Show the engine's last word behind the stage, on a terminal only."""
        if line.strip():
            self._now = line.strip()

    def progress(self, progress: Progress) -> None:
        """Show how far a pull has come."""
        self._pull = progress
        if not self._screen.live and time.monotonic() - self._spoke > _PIPED_EVERY_S:
            self._spoke = time.monotonic()
            self._screen.note(pull_text(progress, None))

    def note(self, note: Note) -> None:
        """Show a line about the pull."""
        if self._screen.live:
            self._line.above(f"         {note.message}", "yellow")
        else:
            self._screen.note(note.message)

    def _words(self) -> str:
        """The moving line of this moment."""
        if self._pull is not None:
            return pull_text(self._pull, (self._screen.live_width or 80) - 3)  # the turning sign, and no line end
        words = (self._stage, ago(time.monotonic() - self._stage_begun), self._outlook(), self._now)
        return "  ".join(word for word in words if word)

    def _outlook(self) -> str:
        """How much longer it will take, in words; empty where nothing is known."""
        if self._forecast is None or self._forecast.last_s < _WORTH_FORETELLING_S:
            return ""
        last = f"last start took {ago(self._forecast.last_s)}"
        left = self._forecast.left_s()
        return f"{last}, this one takes longer" if left is None else f"about {ago(left)} left ({last})"


class EventProgress:
    """The listener of a start for scripts: one JSON line per event, before the result's own line."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._stage = ""
        self._forecast: Forecast | None = None

    def __enter__(self) -> EventProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to leave behind."""

    @property
    def started(self) -> bool:
        """Whether a server was started, as far as the stages tell."""
        return self._stage not in _BEFORE_THE_SERVER

    def stage(self, stage: str, text: str) -> None:
        """A stage began; `eta_s` where an earlier start tells how long it will take."""
        self._stage, left = stage, self._forecast.left_s() if self._forecast else None
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

    def agree_all(self, _: Fetching) -> bool:
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


def pull_text(progress: Progress, width: int | None) -> str:
    """How far a pull has come: stage, bar, share, bytes, speed, time left.

    In `width` columns: where it is narrow without the bar, then without the stage and the time left. None: a pipe.
    """
    share = progress.done_bytes / progress.total_bytes if progress.total_bytes else 0.0
    total, done = size(progress.total_bytes), size(progress.done_bytes)
    if done.split()[1] == total.split()[1]:
        done = done.split()[0]
    figures = [f"{share:.0%}", f"{done}/{total}", f"{size(int(progress.speed))}/s" if progress.speed else ""]
    left = f"{ago(progress.eta_s)} left" if progress.eta_s is not None else ""
    plain = [progress.stage, *figures, left]
    if width is None:
        return _joined(plain)
    room = width - len(_joined(plain)) - 2
    if room >= _LEAST_BAR:
        return _joined([progress.stage, bar(share, min(room, _BAR)), *figures, left])
    choices = (plain, [*figures, left], figures)
    return next((line for line in map(_joined, choices) if len(line) <= width), _joined(figures))


def _joined(words: list[str]) -> str:
    return "  ".join(word for word in words if word)


_T = TypeVar("_T")
_TOKENS = "https://huggingface.co/settings/tokens"


def until_admitted(screen: Screen, work: Callable[[], _T]) -> _T:
    """Do `work`; where the hub refuses it, and somebody is there to ask, ask for what is missing and do it again.

    Raises what `work` raises.
    """
    while True:
        try:
            return work()
        except MscliError as fault:
            if not _helped(screen, fault):
                raise


def _helped(screen: Screen, fault: MscliError) -> bool:
    """Whether the user did something about it, so that another try makes sense."""
    kind, page = fault.details.get("token"), fault.details.get("page")
    asked = screen.live and sys.stdin is not None and sys.stdin.isatty()
    if fault.details.get("cause") != "hf_gated" or not asked or kind not in ("missing", "invalid", "not_accepted"):
        return False
    screen.note(fault.message, "yellow")
    screen.note(f"Accept the conditions: {page}")
    if kind == "not_accepted":
        return screen.confirm("Accepted? Try again?", default=True)
    return _logged_in(screen)


def _logged_in(screen: Screen) -> bool:
    """Ask for a token and keep it. False: none was given, or one in the environment goes before any that is kept."""
    from getpass import getpass

    from mscli.paths import hub_token_file
    from mscli.weights.hub import keep_token, token

    if (sent := token()) and sent.origin != str(hub_token_file()):
        return False
    screen.note(f"Create a token that may read: {_TOKENS}")
    typed = getpass("Token (not shown; Enter: stop): ", stream=sys.stderr).strip()
    if typed:
        screen.note(f"kept in {keep_token(typed)}", "dim")
    return bool(typed)
