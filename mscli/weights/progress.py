"""Progress: how far a pull has come, as values that a listener turns into a bar, lines or JSON events."""

from __future__ import annotations

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
    """A line for the user. `code`: resumed, stalled, reconnected, rate_limit, waiting, corrupt or unchecked."""

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
