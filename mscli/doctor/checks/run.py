"""Running the checks: side by side, each with its deadline, none able to take the others down.

All of them, or those alone that can confirm or refute the causes which a log supports.
"""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

from mscli.diagnosis.causes import Cause
from mscli.doctor.checks.check import AREAS, CRASHED, FAIL, OK, WARN, Check, CheckContext, Finding, one_line
from mscli.frozen import frozen, replace

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


CONFIRMED, REFUTED = "confirmed", "refuted"
_CONSIDERED = 3
_DEADLINE_S = 2.5  # a check that looks at a driver which does not answer waits longer; a log's reader does not
_ODDS: Mapping[str, float] = {CONFIRMED: 8.0, REFUTED: 0.1}
_CERTAIN = 0.98


@frozen
class _Seen:
    """What can tell of a cause. `checks`: those that see what it says, if it is so. `lasts`: it stays as it is until
    somebody changes it; only of such does a machine without it now refute that it was so."""

    checks: tuple[str, ...] = ()
    lasts: bool = False


@cache
def _seen_by() -> Mapping[str, _Seen]:
    """The table of seen_by.csv, by cause."""
    with Path(__file__).with_name("seen_by.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        return {row["cause"]: _Seen(tuple(row["checks"].split()), row["lasts"] == "yes") for row in rows}


def _telling(code: str) -> _Seen:
    return _seen_by().get(code, _Seen())


@frozen
class Verdict:
    """What this machine says of a cause: CONFIRMED or REFUTED, the check that saw it, and what it saw."""

    verdict: str
    check: str
    seen: str


def judge(causes: Sequence[Cause], ctx: CheckContext) -> tuple[tuple[Cause, ...], Mapping[str, Verdict]]:
    """The causes, the likeliest first, as this machine changes how sure they are, and by code what it says of the first
    three. Waits at most 2.5 s."""
    ids = {check for cause in causes[:_CONSIDERED] for check in _telling(cause.code).checks}
    areas = [area for area in AREAS if any(name.partition(".")[0] == area for name in ids)]
    wanted = [_quick(check) for check in checks(areas) if check.id in ids] if areas else []
    found = examine(ctx, wanted)
    told = {cause.code: _verdict(cause.code, found) for cause in causes[:_CONSIDERED]}
    verdicts = {code: verdict for code, verdict in told.items() if verdict}
    surer = [_weighed(cause, verdicts.get(cause.code)) for cause in causes]
    return tuple(sorted(surer, key=lambda cause: -cause.confidence)), verdicts


def _quick(check: Check) -> Check:
    return replace(check, deadline_s=min(check.deadline_s, _DEADLINE_S), thorough_s=_DEADLINE_S)


def _verdict(code: str, found: Sequence[Finding]) -> Verdict | None:
    own = [finding for finding in found if finding.id in _telling(code).checks]
    for finding in own:
        if finding.code == code and finding.status in (FAIL, WARN):
            return Verdict(CONFIRMED, finding.id, finding.seen)
    if _telling(code).lasts and own and all(finding.status == OK for finding in own):
        return Verdict(REFUTED, own[0].id, own[0].seen)
    return None


def _weighed(cause: Cause, verdict: Verdict | None) -> Cause:
    if verdict is None:
        return cause
    odds = _ODDS[verdict.verdict] * cause.confidence
    return replace(cause, confidence=round(min(odds / (1 - cause.confidence + odds), _CERTAIN), 2))
