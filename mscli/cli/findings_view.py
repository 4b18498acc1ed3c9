"""How the doctor's findings on this machine are shown: one line each, by area, with the remedy under what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

from mscli.cli.screen import Screen
from mscli.doctor.checks.check import CRASHED, FAIL, OK, SKIPPED, WARN, Finding

if TYPE_CHECKING:
    from rich.text import Text

_MARKS = {
    OK: ("✓", "green"),
    WARN: ("!", "yellow"),
    FAIL: ("✗", "bold red"),
    SKIPPED: ("-", "dim"),
    CRASHED: ("?", "magenta"),
}
_TROUBLE = (WARN, FAIL, CRASHED)


def as_json(finding: Finding) -> dict[str, object]:
    """One finding for scripts."""
    from mscli.instances.json_values import to_json

    return dict(to_json(finding))


@contextmanager
def progress(screen: Screen) -> Iterator[Callable[[Finding], None]]:
    """Hears findings while the checks run, and shows on a terminal how far they are."""
    if not screen.live:
        yield lambda _: None
        return
    from rich.console import Console

    done = 0
    with Console(stderr=True).status("looking at this machine") as status:

        def heard(finding: Finding) -> None:
            nonlocal done
            done += 1
            status.update(f"looking at this machine: {done} findings, last {finding.id}")

        yield heard


def show_findings(screen: Screen, findings: Sequence[Finding], verbose: bool, seconds: float) -> None:
    """Every finding on a line of its own below its area; evidence and remedy where something is wrong, or `verbose`.

    What was skipped is one line an area, with the first reason, unless `verbose`.
    """
    for area, group in groupby(findings, key=lambda finding: finding.area):
        screen.show(_styled(area, "bold"))
        found = list(group)
        for finding in found if verbose else [each for each in found if each.status != SKIPPED]:
            screen.show(*_lines(finding, verbose))
        skipped = [] if verbose else [each for each in found if each.status == SKIPPED]
        if skipped:
            more = f" ({len(skipped)} checks skipped, -v lists them)" if len(skipped) > 1 else ""
            screen.show(_styled(f"  - {skipped[0].seen}{more}", "dim"))
    counts = {status: sum(found.status == status for found in findings) for status in _MARKS}
    words = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    screen.text(f"{words or 'nothing was looked at'} ({seconds:.1f} s)")


def _lines(finding: Finding, verbose: bool) -> Iterator[Text]:
    mark, style = _MARKS[finding.status]
    code = f" [{finding.code}]" if finding.code else ""
    yield _styled(f"  {mark} {finding.seen}{code}", style if finding.status in _TROUBLE else "")
    trouble = finding.status in _TROUBLE
    if trouble or verbose:
        yield from (_styled(f"      | {line}", "dim") for line in finding.evidence)
    if trouble and finding.remedy:
        yield _styled(f"      {finding.remedy}", "")
    if trouble and finding.command:
        yield _styled(f"      $ {finding.command}", "cyan")


def _styled(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style=style)
