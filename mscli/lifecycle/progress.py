"""What is told while something starts, how long that is waited for, and that somebody has stopped it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.instances.fetching import FetchNote
from mscli.instances.records import Record
from mscli.weights.progress import DONE, Note, Progress
from mscli.weights.progress import Listener as WeightsListener

if TYPE_CHECKING:
    from mscli.lifecycle.learning import Eta


class Listener(WeightsListener, Protocol):
    """Hears how a start goes on: each stage as it is reached, what a pull does, and the engine's log lines."""

    def stage(self, stage: str, text: str) -> None:
        """`stage` is one of the contract's stages; `text` says what is being done."""

    def log_line(self, line: str) -> None:
        """A line that the engine logged."""


@frozen
class Patience:
    """How long to wait, in seconds: `timeout_s` in all, `stall_s` without any sign of life (log line or CPU time)."""

    timeout_s: float = 1800.0
    stall_s: float = 300.0


class Download(WeightsListener):
    """Hears of a pull and passes it on: notes how far it is, and ends it where somebody has stopped this start.

    `eta`: a start that waited for a pull tells nothing of the next.
    """

    def __init__(
        self, listener: WeightsListener, note: FetchNote, stopped: Callable[[], MscliError], eta: Eta | None = None
    ) -> None:
        self._listener, self._note, self._stopped, self._eta = listener, note, stopped, eta

    def progress(self, progress: Progress) -> None:
        """Passes it on. Raises StoppedMeanwhile."""
        if self._eta:
            self._eta.spoilt = True
        if progress.stage == DONE:
            self._note.end()
        elif not self._note.write(progress.done_bytes, progress.total_bytes):
            raise self._stopped()
        self._listener.progress(progress)

    def note(self, note: Note) -> None:
        """Passes it on."""
        self._listener.note(note)


class StoppedMeanwhile(MscliError):
    """Somebody has stopped or replaced the instance on purpose while an mscli waited for it."""


def stopped_meanwhile(record: Record) -> StoppedMeanwhile:
    """The error for whoever waits: no failure of the start, so nothing is to be changed or remembered."""
    return stopped_fetching(record.name, record.plan.profile, record.log)


def stopped_fetching(name: str, profile: str, log: Path) -> StoppedMeanwhile:
    """The same for a start that has no record yet."""
    return StoppedMeanwhile(
        Code.START_FAILED,
        f"{name} was stopped by another mscli while it was starting",
        f"To list instances: mscli status. Start it again: mscli up {profile}",
        {"cause": "stopped", "log": str(log)},
    )
