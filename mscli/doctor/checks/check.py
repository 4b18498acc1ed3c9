"""What a check is and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mscli.doctor.checks.context import CheckContext

OK, WARN, FAIL, SKIPPED, CRASHED = "ok", "warn", "fail", "skipped", "crashed"

AREAS = (
    *("host", "driver", "gpu", "cuda", "containers", "engines", "ollama"),
    *("weights", "network", "ports", "instances", "profile"),
)
"""In the order in which they are shown: what others build on comes first."""


@dataclass(frozen=True)
class Finding:
    """What one check found on this machine.

    `id`: of the check, `area.what`. `code`: of the closed list of causes, None where nothing is wrong or no code fits.
    `seen`: what was found, one line. `evidence`: what shows it, as it was read (lines of a log, an answer, a path).
    `remedy`: what to do, in words; `command`: the same to type, where one command does it.
    """

    id: str
    area: str
    status: str
    seen: str
    code: str | None = None
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    command: str | None = None


@dataclass(frozen=True)
class Seen:
    """What a check tells of one thing it looked at; the check's id and area are added by whoever runs it."""

    status: str
    seen: str
    code: str | None = None
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    command: str | None = None


Look = Callable[[CheckContext], Iterator[Seen]]
Report = Callable[..., Seen]
"""`warn` or `fail`: which of them, a check may leave to what depends on what it found."""


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong with a machine, looked at by doing it rather than by searching for a file.

    `look` yields a Seen for each thing it looks at (each GPU, each instance), and nothing where it has no place (what a
    profile needs, when none was asked about). It runs beside others
    in a thread, must give a deadline to whatever it waits for, and is given up after `deadline_s` seconds: then, and
    when it raises, the check counts as crashed. It raises nothing for a fault of the machine. `thorough_s`: its
    deadline instead where its area may take its time (see CheckContext.thorough).
    """

    id: str
    look: Look
    deadline_s: float = 2.5
    thorough_s: float | None = None

    @property
    def area(self) -> str:
        """The part of the id before its dot, one of AREAS."""
        return self.id.partition(".")[0]

    def patience_s(self, ctx: CheckContext) -> float:
        """How long this visit waits for it."""
        return self.thorough_s if self.thorough_s and ctx.thorough(self.area) else self.deadline_s


def ok(seen: str, *evidence: str) -> Seen:
    """Nothing wrong."""
    return Seen(OK, seen, None, evidence)


def skipped(why: str) -> Seen:
    """Not looked at, and why: nothing is known then, which is not the same as nothing wrong."""
    return Seen(SKIPPED, why)


def warn(code: str | None, seen: str, remedy: str, *evidence: str, command: str | None = None) -> Seen:
    """Something that works now, or is not needed now, and may fail or mislead later."""
    return Seen(WARN, seen, code, evidence, remedy, command)


def fail(code: str | None, seen: str, remedy: str, *evidence: str, command: str | None = None) -> Seen:
    """Something that keeps a model from running here."""
    return Seen(FAIL, seen, code, evidence, remedy, command)
