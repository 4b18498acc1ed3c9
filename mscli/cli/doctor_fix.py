"""`mscli doctor --fix`: what is safe and ours is put right, everything else is shown as commands."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import typer

from mscli.cli.doctor_machine import (
    About,
    Visit,
    areas_of,
    exit_code,
    scene_in_spite,
    scene_of,
    show_visit,
    visit,
    visit_json,
)
from mscli.cli.screen import Screen
from mscli.doctor.fix import Chore, Fix, Outcome, carry_out, look
from mscli.doctor.live.check import CRASHED, FAIL, WARN, Finding
from mscli.doctor.live.scene import Scene
from mscli.errors import MscliError

_OWN = "mscli doctor"


@dataclass(frozen=True)
class _Asked:
    dry_run: bool
    yes: bool


def fix_machine(screen: Screen, about: About, dry_run: bool, yes: bool) -> int:
    """Show what can be put right, do it (unless `dry_run`), look again, and show what is left; the exit code."""
    areas = areas_of(about)  # an unknown area is told before anything is changed
    scene, broken = scene_in_spite(about)
    fixes, chores = look(scene, areas)
    if broken:
        screen.note(f"warning: {broken.message}", "yellow")
    outcomes = [_treated(screen, fix, _Asked(dry_run, yes)) for fix in fixes]
    if not dry_run:
        scene = _scene_after(about, outcomes)
        chores = look(scene, areas)[1]
    seen = visit(screen, scene, about)
    spared = {command for fix in fixes for command in fix.instead_of} if dry_run else set()
    left = [each for each in _left(chores, seen.findings) if each.command not in spared]
    if screen.json_mode:
        commands = [_command_json(each) for each in left]
        screen.data({**visit_json(seen), "fixes": [_json(each) for each in outcomes], "commands": commands})
    else:
        _show_rest(screen, about, seen, left)
        screen.text(_last_word(outcomes, dry_run))
    return exit_code(seen, about)


def _scene_after(about: About, outcomes: list[Outcome]) -> Scene:
    """The machine anew. Raises PROFILE_INVALID, with what was done, where the profile asked about is still broken."""
    try:
        return scene_of(about)
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
        return Outcome(fix, False, "only shown (--dry-run)")
    if fix.ends_processes and not asked.yes and not _agreed(screen, fix):
        return _told(screen, Outcome(fix, False, "not done: processes are only ended with --yes, or where you agree"))
    return _told(screen, carry_out(fix, lambda step: screen.note(f"    {step}", "dim")))


def _agreed(screen: Screen, fix: Fix) -> bool:
    """Ask on a terminal; a script is never asked, and has not agreed."""
    if not screen.live or not sys.stdin.isatty():
        return False
    return typer.confirm(f"{fix.what[:1].upper()}{fix.what[1:]}?", default=False, err=True)


def _told(screen: Screen, outcome: Outcome) -> Outcome:
    if not screen.json_mode:
        screen.text(f"  {'✓' if outcome.done else '✗'} {outcome.result}")
    return outcome


def _left(chores: Iterable[Chore], findings: Iterable[Finding]) -> Iterator[Chore]:
    """What is left to the user, each command once. None is ever run."""
    told: set[str] = set()
    trouble = (found for found in findings if found.status in (WARN, FAIL, CRASHED) and found.command)
    remedies = (
        Chore(found.area, f"{found.seen}. {found.remedy}".removesuffix(". "), found.command) for found in trouble
    )
    for chore in (*chores, *remedies):
        if chore.command is None or not (chore.command in told or chore.command.startswith(_OWN)):
            told.add(chore.command or "")
            yield chore


def _show_rest(screen: Screen, about: About, seen: Visit, left: list[Chore]) -> None:
    screen.text("")
    show_visit(screen, seen, about)
    if left:
        screen.text("\nFor you to do (mscli runs none of it):")
    for chore in left:
        screen.text(f"  {chore.area}: {chore.why}")
        if chore.command:
            screen.text(f"      $ {chore.command}")


def _last_word(outcomes: list[Outcome], dry_run: bool) -> str:
    if not outcomes:
        return "\nNothing of mscli's own is to be put right."
    if dry_run:
        return "\nNothing was changed. Do it: mscli doctor --fix"
    return f"\n{sum(outcome.done for outcome in outcomes)} of {len(outcomes)} put right"


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


def _command_json(chore: Chore) -> dict[str, object]:
    root = chore.command is not None and "sudo" in chore.command.split()
    return {"area": chore.area, "why": chore.why, "command": chore.command, "root": root}
