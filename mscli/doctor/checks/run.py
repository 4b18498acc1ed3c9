"""Running the checks: side by side, each with its deadline, none able to take the others down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module

from mscli.doctor.checks.check import AREAS, CRASHED, Check, Finding, Seen
from mscli.doctor.checks.context import CheckContext

Listener = Callable[[Finding], None]


def checks(areas: Iterable[str] = AREAS) -> tuple[Check, ...]:
    """The checks of these areas, in the order in which they are shown."""
    wanted = set(areas)
    return tuple(check for area in AREAS if area in wanted for check in _of(area))


def _of(area: str) -> tuple[Check, ...]:
    found: tuple[Check, ...] = import_module(f"mscli.doctor.checks.{area}.{area}").CHECKS
    return found


def examine(ctx: CheckContext, wanted: Sequence[Check], listener: Listener = lambda _: None) -> tuple[Finding, ...]:
    """What the checks find, in their order. `listener` hears each finding as soon as it is there.

    All run side by side. Blocks at most as long as the longest deadline among them: a check that takes longer is left
    alone and counts as crashed.
    """
    visits = [_Visit(check, ctx, listener) for check in wanted]
    for visit in visits:
        visit.begin()
    return tuple(finding for visit in visits for finding in visit.end())


class _Visit:
    """One check being run, in a thread that ends with the program."""

    def __init__(self, check: Check, ctx: CheckContext, listener: Listener) -> None:
        self._check, self._ctx, self._listener = check, ctx, listener
        self._found: list[Finding] = []
        self._over = threading.Event()
        self._begun = 0.0

    def begin(self) -> None:
        self._begun = time.monotonic()
        threading.Thread(target=self._run, name=self._check.id, daemon=True).start()

    def end(self) -> list[Finding]:
        patience_s = self._check.patience_s(self._ctx)
        left = self._begun + patience_s - time.monotonic()
        if not self._over.wait(max(left, 0.0)):
            late = Seen(CRASHED, f"gave no answer within {patience_s:g} s")
            return [*self._found, self._named(late)]
        return self._found

    def _run(self) -> None:
        try:
            for seen in self._check.look(self._ctx):
                finding = self._named(seen)
                self._found.append(finding)
                self._listener(finding)
        except Exception as fault:  # the one place beside main: a check that fails must not hide what others find
            self._found.append(self._named(Seen(CRASHED, f"the check itself failed: {fault!r}")))
        finally:
            self._over.set()

    def _named(self, seen: Seen) -> Finding:
        check = self._check
        return Finding(
            check.id, check.area, seen.status, seen.seen, seen.code, seen.evidence, seen.remedy, seen.command
        )
