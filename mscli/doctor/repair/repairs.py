"""What `mscli doctor --fix` may change: records, processes and profiles of our own, each shown before it is changed.

Never drivers, services, others' processes or bytes that were paid for with time: those become manual steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mscli.doctor.checks.check import AREAS
from mscli.doctor.checks.context import CheckContext
from mscli.errors import MscliError

Listener = Callable[[str], None]


@dataclass(frozen=True)
class Fix:
    """One change that is safe and ours.

    `id`: kind and what it is about. `area`: where the doctor looks at such things. `what`: what it does, one line.
    `touches`: files and processes. `shows`: what one should see first (processes, a diff). `finding`: the check whose
    finding it answers, where one looks at the same thing. `ends_processes`: to be agreed to first. `instead_of`:
    commands that need no longer be typed once it is done.
    `apply` does it, tells its listener of steps, and returns what happened; it looks again before it changes anything,
    and raises MscliError or OSError where it could not.
    """

    id: str
    area: str
    what: str
    touches: tuple[str, ...]
    apply: Callable[[Listener], str]
    shows: tuple[str, ...] = ()
    finding: str | None = None
    ends_processes: bool = False
    instead_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class ManualStep:
    """What is left to the user: `why`, and the command to type where one command does it."""

    area: str
    why: str
    command: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a fix. `result`: what happened, or why it was not done."""

    fix: Fix
    done: bool
    result: str


Found = tuple[list[Fix], list[ManualStep]]


def look(ctx: CheckContext, areas: Iterable[str] = AREAS) -> Found:
    """What can be mended in these areas, in the order in which to do it, and what is left to the user.

    Reads files, /proc and NVML; changes nothing.
    """
    from mscli.doctor.repair.orphans import look_at_orphans
    from mscli.doctor.repair.profiles import look_at_profiles
    from mscli.doctor.repair.records import look_at_records
    from mscli.doctor.repair.weights import look_at_weights

    looks = {
        "instances": (look_at_orphans, look_at_records),
        "profile": (look_at_profiles,),
        "weights": (look_at_weights,),
    }
    wanted = set(areas)
    found = [one(ctx) for area, own in looks.items() if area in wanted for one in own]
    return [fix for fixes, _ in found for fix in fixes], [repair for _, repairs in found for repair in repairs]


def carry_out(fix: Fix, listener: Listener = lambda _: None) -> Outcome:
    """Do it. What keeps it from being done is its result, never an error: one fix must not keep others from theirs."""
    try:
        return Outcome(fix, True, fix.apply(listener))
    except MscliError as fault:
        return Outcome(fix, False, f"{fault.message}. {fault.hint}".removesuffix(". "))
    except OSError as fault:
        return Outcome(fix, False, f"{fault.strerror or fault}: {fault.filename}" if fault.filename else str(fault))
