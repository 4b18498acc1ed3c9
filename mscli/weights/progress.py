"""How far a pull has come, as values that a listener turns into a bar, lines or JSON events; and what it ends in."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from mscli.frozen import frozen

# Stages of a pull, in the order in which they can occur.
LISTING, WAITING, DOWNLOADING, VERIFYING, COPYING, DONE = (
    "listing",
    "waiting",
    "downloading",
    "verifying",
    "copying",
    "done",
)


@frozen
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


@frozen
class Note:
    """A line for the user.

    `code`: resumed, waiting, retrying, stalled, slow, plain_http, rate_limit, corrupt, repaired, unchecked, lm_studio
    or vulkan_build.
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


class RateWatch:
    """Tells when a download that was fast has nearly stood still for a while: bytes still come, so that no silence
    shows it. A new connection often brings the speed back."""

    FAST, SLOW, FELL_TO = 2**20, 2**19, 20  # bytes a second, and by which factor

    def __init__(self, window_s: float) -> None:
        self._window_s, self._best, self._told = window_s, 0.0, float("-inf")
        self._seen: deque[tuple[float, int]] = deque()

    def look(self, done_bytes: int, now: float) -> str | None:
        """What to say of the download at this moment; None while it goes on as it should, and for some windows after.

        `now`: seconds of a clock that never goes back.
        """
        self._seen.append((now, done_bytes))
        if now - self._seen[0][0] < self._window_s:
            return None
        while now - self._seen[1][0] >= self._window_s:
            self._seen.popleft()
        rate = (done_bytes - self._seen[0][1]) / (now - self._seen[0][0])
        self._best = max(self._best, rate)
        fell = self._best >= self.FAST and rate < min(self._best / self.FELL_TO, self.SLOW)
        if not fell or now - self._told < 5 * self._window_s:
            return None
        self._told = now
        return f"the download fell from {self._best / 2**20:.0f} MiB/s to {rate / 2**10:.0f} KiB/s; connecting again"


@frozen
class WeightFiles:
    """Weights as an engine is given them: what every way of getting weights ends in. `model`: the file or folder (for
    Ollama the tag)."""

    model: str
    projector: str | None
    bytes_on_disk: int
