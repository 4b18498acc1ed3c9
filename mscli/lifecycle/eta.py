"""How a start goes on beside the last one of its kind: when it will probably be ready."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable

from mscli.frozen import frozen
from mscli.instances.json_values import append_lines, load_lines
from mscli.lifecycle.decision import Decision
from mscli.paths import Places


@frozen
class Kind:
    """What makes two starts alike: they take about as long. `gpus`: the cards' names, one for each."""

    engine: str
    version: str | None
    profile: str
    variant: str
    gpus: tuple[str, ...]


@frozen
class Mark:
    """Something that a start told, and how many seconds after its begin."""

    text: str
    seconds: float


@frozen
class Past:
    """A good start: what it told and when, and after how many seconds it was ready."""

    kind: Kind
    seconds: float
    marks: tuple[Mark, ...]


@frozen
class Forecast:
    """When a start will be ready if it goes as the last one. `ready_at`: by time.monotonic(); `last_s`: what the last
    one took."""

    ready_at: float
    last_s: float

    def left_s(self) -> float | None:
        """Seconds to go, None once it takes longer than the last one: then nothing is known."""
        left = self.ready_at - time.monotonic()
        return left if left > 0 else None


@runtime_checkable
class Foreseeing(Protocol):
    """A listener that shows how long a start will still take."""

    def forecast(self, forecast: Forecast | None) -> None:
        """Takes what is known from now on; None: nothing (any more)."""


class Eta:
    """One start, from its begin. `spoilt`: it waited for what the next one will not, and teaches nothing."""

    def __init__(self, kind: Kind, past: Past | None, listener: object) -> None:
        self._kind, self._past = kind, past
        self._listener = listener if isinstance(listener, Foreseeing) else None
        self._begun = time.monotonic()
        self._marks: dict[str, float] = {}
        self._seconds: float | None = None
        self.spoilt = False
        self._tell(0.0)

    def mark(self, text: str) -> None:
        """Something was told; where the last start told the same, the forecast goes by when that was."""
        self._marks.setdefault(text, time.monotonic() - self._begun)
        then = next((mark.seconds for mark in self._past.marks if mark.text == text), None) if self._past else None
        if then is not None:
            self._tell(then)

    def ready(self) -> None:
        """It is ready now: nothing is to be foreseen any more."""
        self._seconds = time.monotonic() - self._begun
        if self._listener:
            self._listener.forecast(None)

    def keep(self, places: Places) -> None:
        """Keep how it went for the next start. Raises OSError when the state cannot be written."""
        if self._seconds is not None and not self.spoilt:
            marks = tuple(Mark(text, round(at, 2)) for text, at in self._marks.items())
            append_lines(places.starts, [Past(self._kind, round(self._seconds, 2), marks)])

    def _tell(self, then: float) -> None:
        """Tell the listener that this start is now where the last one was after `then` seconds."""
        if self._listener and self._past:
            self._listener.forecast(Forecast(time.monotonic() + self._past.seconds - then, self._past.seconds))


def eta(decision: Decision, places: Places, listener: object) -> Eta:
    """The expected times of the start that begins now."""
    plan = decision.plan
    kind = Kind(
        engine=plan.engine,
        version=decision.snapshot.versions.get(plan.engine),
        profile=plan.profile,
        variant=plan.variant,
        gpus=tuple(memory.name for memory in plan.memory),
    )
    alike = [past for past in load_lines(places.starts, Past) if past.kind == kind]
    return Eta(kind, alike[-1] if alike else None, listener)
