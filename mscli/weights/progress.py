"""Progress: how far a pull has come, as values that a listener turns into a bar, lines or JSON events."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

# Stages of a pull, in the order in which they can occur.
LISTING, WAITING, DOWNLOADING, VERIFYING, COPYING, DONE = (
    "listing",
    "waiting",
    "downloading",
    "verifying",
    "copying",
    "done",
)


@dataclass(frozen=True)
class Progress:
    """One look at a pull. `done_bytes` never goes back within a stage, except when a corrupt file is fetched anew.

    `stage`: one of the stages above. `speed`: bytes per second over the last seconds, None while unknown.
    `eta_s`: seconds to go at that speed. `file`: the file under way, as the repository names it.
    """

    stage: str
    done_bytes: int
    total_bytes: int
    speed: float | None
    eta_s: float | None
    file: str | None


@dataclass(frozen=True)
class Note:
    """A line for the user.

    `code`: resumed, waiting, retrying, stalled, plain_http, rate_limit, corrupt, repaired, unchecked, lm_studio or
    vulkan_build.
    """

    code: str
    message: str


class Listener(Protocol):
    """Who hears about a pull. Always called from the thread that called the pull, about five times a second."""

    def progress(self, progress: Progress) -> None:
        """Takes a look at the pull. Must return quickly: the pull's accounting waits for it."""

    def note(self, note: Note) -> None:
        """Takes a line for the user."""


class Silence:
    """The listener for nobody."""

    def progress(self, progress: Progress) -> None:
        """Hears nothing."""

    def note(self, note: Note) -> None:
        """Hears nothing."""


class Meter:
    """Turns byte counts of one stage into Progress, with the speed over the last ten seconds."""

    WINDOW_S = 10.0

    def __init__(self, stage: str, total_bytes: int) -> None:
        self.stage, self.total_bytes = stage, total_bytes
        self._seen: deque[tuple[float, int]] = deque()

    def look(self, done_bytes: int, file: str | None = None) -> Progress:
        """The progress at this moment."""
        now = time.monotonic()
        if self._seen and done_bytes < self._seen[-1][1]:
            self._seen.clear()  # a corrupt file starts anew: its bytes were not lost at a negative speed
        self._seen.append((now, done_bytes))
        while now - self._seen[0][0] > self.WINDOW_S:
            self._seen.popleft()
        elapsed_s, gained = now - self._seen[0][0], done_bytes - self._seen[0][1]
        speed = gained / elapsed_s if elapsed_s > 0 else None
        eta_s = (self.total_bytes - done_bytes) / speed if speed else None
        return Progress(self.stage, done_bytes, self.total_bytes, speed, eta_s, file)
