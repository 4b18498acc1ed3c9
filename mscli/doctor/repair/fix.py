"""What a repair is: a change that is safe and ours, a step left to the user, and what became of a change."""

from __future__ import annotations

from collections.abc import Callable

from mscli.frozen import frozen

Listener = Callable[[str], None]


@frozen
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


@frozen
class ManualStep:
    """What is left to the user: `why`, and the command to type where one command does it."""

    area: str
    why: str
    command: str | None = None


@frozen
class Outcome:
    """What became of a fix. `result`: what happened, or why it was not done."""

    fix: Fix
    done: bool
    result: str


Repairs = tuple[list[Fix], list[ManualStep]]
