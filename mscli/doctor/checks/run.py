"""Running the checks: side by side, each with its deadline, none able to take the others down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import import_module

from mscli.doctor.checks.check import AREAS, CRASHED, Check, Finding, one_line
from mscli.doctor.checks.context import CheckContext

Listener = Callable[[Finding], None]


def checks(areas: Iterable[str] = AREAS) -> tuple[Check, ...]:
    """The checks of these areas, in the order in which they are shown.

    An area is the module or the package of its name beside this file; it lists its checks in CHECKS.
    """
    wanted = set(areas)
    modules = (import_module(f"mscli.doctor.checks.{area}") for area in AREAS if area in wanted)
    return tuple(check for module in modules for check in module.CHECKS)


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
        timeout_s = self._check.timeout_s(self._ctx)
        left = self._begun + timeout_s - time.monotonic()
        if not self._over.wait(max(left, 0.0)):
            return [*self._found, self._named(Finding(CRASHED, f"did not answer within {timeout_s:g} s"))]
        return self._found

    def _run(self) -> None:
        try:
            for unnamed in self._check.findings(self._ctx):
                finding = self._named(unnamed)
                self._found.append(finding)
                self._listener(finding)
        except Exception as fault:  # the one place beside main: a check that fails must not hide what others find
            self._found.append(self._named(Finding(CRASHED, f"the check itself failed: {fault!r}")))
        finally:
            self._over.set()

    def _named(self, finding: Finding) -> Finding:
        """The finding with its check's name, each of its texts in one line."""
        return replace(
            finding,
            id=self._check.id,
            area=self._check.area,
            seen=one_line(finding.seen),
            evidence=tuple(map(one_line, finding.evidence)),
            remedy=one_line(finding.remedy),
            command=finding.command and one_line(finding.command),
        )
