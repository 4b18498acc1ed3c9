"""`mscli doctor --fix`: applies safe fixes to mscli's own files, prints commands for the rest."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from mscli.cli.doctor_machine import (
    About,
    Visit,
    areas_of,
    context_in_spite,
    context_of,
    exit_code,
    show_visit,
    visit,
    visit_json,
)
from mscli.cli.screen import Screen
from mscli.doctor.checks.check import CRASHED, FAIL, WARN, CheckContext, Finding
from mscli.doctor.repair import carry_out, look
from mscli.doctor.repair.fix import Fix, ManualStep, Outcome
from mscli.errors import MscliError
from mscli.frozen import frozen

_OWN = "mscli doctor"


@frozen
class _Asked:
    dry_run: bool
    yes: bool


def fix_machine(screen: Screen, about: About, dry_run: bool, yes: bool) -> int:
    """Show what can be fixed, do it (unless `dry_run`), look again, and show what is left; the exit code."""
    areas = areas_of(about)  # an unknown area is told before anything is changed
    ctx, broken = context_in_spite(about)
    fixes, repairs = look(ctx, areas)
    if broken:
        screen.note(f"warning: {broken.message}", "yellow")
    outcomes = [_treated(screen, fix, _Asked(dry_run, yes)) for fix in fixes]
    if not dry_run:
        ctx = _context_after(about, outcomes)
        repairs = look(ctx, areas)[1]
    seen = visit(screen, ctx, about)
    spared = {command for fix in fixes for command in fix.instead_of} if dry_run else set()
    left = [each for each in _left(repairs, seen.findings) if each.command not in spared]
    if screen.json_mode:
        commands = [_command_json(each) for each in left]
        screen.data({**visit_json(seen), "fixes": [_json(each) for each in outcomes], "commands": commands})
    else:
        _show_rest(screen, about, seen, left)
        screen.text(_last_word(outcomes, dry_run))
    return exit_code(seen, about)


def _context_after(about: About, outcomes: list[Outcome]) -> CheckContext:
    """The machine anew. Raises PROFILE_INVALID, with what was done, where the profile asked about is still broken."""
    try:
        return context_of(about)
    except MscliError as fault:
        fault.details["fixes"] = [_json(each) for each in outcomes]
        raise


def _treated(screen: Screen, fix: Fix, asked: _Asked) -> Outcome:
    """Show one fix, and do it where it was agreed to."""
    if not screen.json_mode:
        screen.text(f"{'would ' if asked.dry_run else ''}{fix.what}")
        for line in fix.shows:
            screen.text(f"    {line}")
    if asked.dry_run:
        return Outcome(fix, False, "not applied (--dry-run)")
    if fix.ends_processes and not asked.yes and not _agreed(screen, fix):
        return _told(screen, Outcome(fix, False, "not done: stopping processes needs --yes or your confirmation"))
    return _told(screen, carry_out(fix, lambda step: screen.note(f"    {step}", "dim")))


def _agreed(screen: Screen, fix: Fix) -> bool:
    """Ask on a terminal; a script is never asked, and has not agreed."""
    if not screen.live or not (sys.stdin and sys.stdin.isatty()):
        return False
    return screen.confirm(f"{fix.what[:1].upper()}{fix.what[1:]}?", default=False)


def _told(screen: Screen, outcome: Outcome) -> Outcome:
    if not screen.json_mode:
        screen.text(f"  {'✓' if outcome.done else '✗'} {outcome.result}")
    return outcome


def _left(repairs: Iterable[ManualStep], findings: Iterable[Finding]) -> Iterator[ManualStep]:
    """What is left to the user, each command once. None is ever run."""
    told: set[str] = set()
    trouble = (found for found in findings if found.status in (WARN, FAIL, CRASHED) and found.command)
    remedies = (
        ManualStep(found.area, f"{found.seen}. {found.remedy}".removesuffix(". "), found.command) for found in trouble
    )
    for repair in (*repairs, *remedies):
        if repair.command is None or not (repair.command in told or repair.command.startswith(_OWN)):
            told.add(repair.command or "")
            yield repair


def _show_rest(screen: Screen, about: About, seen: Visit, left: list[ManualStep]) -> None:
    screen.text("")
    show_visit(screen, seen, about.verbose)
    if left:
        screen.text("\nRun these yourself (mscli does not):")
    for repair in left:
        screen.text(f"  {repair.area}: {repair.why}")
        if repair.command:
            screen.text(f"      $ {repair.command}")


def _last_word(outcomes: list[Outcome], dry_run: bool) -> str:
    if not outcomes:
        return "\nNothing to fix."
    if dry_run:
        return "\nNothing was changed. To apply: mscli doctor --fix"
    return f"\n{sum(outcome.done for outcome in outcomes)} of {len(outcomes)} fixed"


def _json(outcome: Outcome) -> dict[str, object]:
    fix = outcome.fix
    return {
        "id": fix.id,
        "area": fix.area,
        "what": fix.what,
        "touches": list(fix.touches),
        "shows": list(fix.shows),
        "finding": fix.finding,
        "ends_processes": fix.ends_processes,
        "done": outcome.done,
        "result": outcome.result,
    }


def _command_json(repair: ManualStep) -> dict[str, object]:
    root = repair.command is not None and "sudo" in repair.command.split()
    return {"area": repair.area, "why": repair.why, "command": repair.command, "root": root}
