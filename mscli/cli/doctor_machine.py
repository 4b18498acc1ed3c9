"""One run of the doctor on this machine: what is looked at, how findings are shown, what is mended, and the report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from mscli.cli.layout import clipped, count, styled
from mscli.cli.screen import Screen
from mscli.cli.typed import only_one
from mscli.doctor.checks.check import AREAS, CRASHED, FAIL, OK, SKIPPED, WARN, CheckContext, Finding
from mscli.doctor.checks.run import checks, examine
from mscli.doctor.repair import carry_out, look
from mscli.doctor.repair.fix import Fix, ManualStep, Outcome
from mscli.errors import Code, Exit, MscliError
from mscli.frozen import frozen
from mscli.instances.json_values import to_json
from mscli.lifecycle.decision import chosen
from mscli.paths import expanded, places

STDOUT = "-"
_MARKS = {
    OK: ("✓", "green"),
    WARN: ("!", "yellow"),
    FAIL: ("✗", "bold red"),
    SKIPPED: ("-", "dim"),
    CRASHED: ("?", "magenta"),
}
_TROUBLE = (WARN, FAIL, CRASHED)
_WORST_FIRST = (FAIL, CRASHED, WARN, OK, SKIPPED)


@frozen
class About:
    """What is looked at. `profile` or `file`: also all that this profile needs. `only`: areas, empty for all.

    `strict`: warnings count for the exit code too. `engine`: what the profile is to run on, in place of its own.
    """

    profile: str | None
    file: Path | None
    only: tuple[str, ...]
    verbose: bool
    strict: bool
    engine: str | None = None


@frozen
class Visit:
    """What was found, and how long it took."""

    findings: tuple[Finding, ...]
    seconds: float


def examine_machine(screen: Screen, about: About) -> int:
    """Look, and show what was found; the exit code."""
    seen = visit(screen, context_of(about), about)
    if screen.json_mode:
        screen.data(visit_json(seen))
    else:
        show_visit(screen, seen, about.verbose)
    return exit_code(seen, about)


def visit(screen: Screen, ctx: CheckContext, about: About) -> Visit:
    """Run the checks, with progress on a terminal. Raises USAGE for an area that there is not."""
    wanted = checks(areas_of(about))
    begun = time.monotonic()
    with _progress(screen) as listener:
        findings = examine(ctx, wanted, listener)
    return Visit(findings, time.monotonic() - begun)


def context_of(about: About) -> CheckContext:
    """The machine, and the profile asked about. Raises as the catalogue does for one that is not there or broken."""
    only_one(about.profile, about.file)
    named = about.profile or about.file
    wanted = chosen(about.profile, about.file, places(), unfit=True, engine=about.engine) if named else None
    return CheckContext(places(), chosen=wanted, asked=frozenset(about.only))


def context_in_spite(about: About) -> tuple[CheckContext, MscliError | None]:
    """As `context_of`, but a profile whose file is broken is left out, and told."""
    try:
        return context_of(about), None
    except MscliError as fault:
        if fault.code is not Code.PROFILE_INVALID:
            raise
        return CheckContext(places(), asked=frozenset(about.only)), fault


def areas_of(about: About) -> Sequence[str]:
    """The areas to look at. Raises USAGE for an area that there is not."""
    if unknown := [area for area in about.only if area not in AREAS]:
        raise MscliError(Code.USAGE, f"unknown area {unknown[0]!r}", f"Areas:  {', '.join(AREAS)}")
    return about.only or AREAS


def visit_json(seen: Visit) -> dict[str, object]:
    """A visit for scripts."""
    return {"findings": [to_json(found) for found in seen.findings], "seconds": round(seen.seconds, 3)}


def exit_code(seen: Visit, about: About) -> Exit:
    """5 where something fails (with `strict` also where something is doubtful), else 0."""
    bad = {FAIL, WARN} if about.strict else {FAIL}
    return Exit.FINDINGS if any(found.status in bad for found in seen.findings) else Exit.DONE


@contextmanager
def _progress(screen: Screen) -> Iterator[Callable[[Finding], None]]:
    """Hears findings while the checks run, and shows on a terminal how far they are."""
    if not screen.live:
        yield lambda _: None
        return
    from mscli.cli.progress import MovingLine

    heard: list[Finding] = []
    line = MovingLine(
        screen, lambda: f"checking this machine: {len(heard)} done" + (f", {heard[-1].id}" if heard else "")
    )
    line.start()
    try:
        yield heard.append
    finally:
        line.stop()


def show_visit(screen: Screen, seen: Visit, verbose: bool) -> None:
    """One line for each area, and below it what is wrong, with evidence and remedy; with `verbose` every finding."""
    for area, group in groupby(seen.findings, key=lambda finding: finding.area):
        found = list(group)
        if verbose:
            screen.line(styled(area, "bold"))
        else:
            _show_area(screen, area, found)
        for finding in found:
            if verbose or finding.status in _TROUBLE:
                _show_finding(screen, finding, verbose)
    counts = {status: sum(found.status == status for found in seen.findings) for status in _MARKS}
    words = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    details = "" if verbose else "; every check: mscli doctor -v"
    screen.paragraph(f"{words or 'no checks ran'} ({seen.seconds:.1f} s{details})")


def _show_area(screen: Screen, area: str, found: Sequence[Finding]) -> None:
    """The worst mark of an area, and how many of its checks passed; where none ran, why."""
    worst = min(found, key=lambda finding: _WORST_FIRST.index(finding.status))
    mark, style = _MARKS[worst.status]
    passed = sum(finding.status == OK for finding in found)
    said = [count(passed, "check") + " passed"] if passed else []
    for status, word in ((FAIL, "failed"), (WARN, "warned"), (CRASHED, "crashed")):
        number = sum(finding.status == status for finding in found)
        said += [f"{number} {word}"] if number else []
    skipped = [finding for finding in found if finding.status == SKIPPED]
    if skipped:
        said.append(f"{len(skipped)} skipped" if said else skipped[0].seen)
    text = clipped(f"{mark} {area:<11}{', '.join(said)}", screen.width or sys.maxsize)
    screen.line(styled(text, style if worst.status in _TROUBLE else "dim" if worst.status == SKIPPED else ""))


def _show_finding(screen: Screen, finding: Finding, verbose: bool) -> None:
    mark, style = _MARKS[finding.status]
    trouble = finding.status in _TROUBLE
    code = f" [{finding.code}]" if finding.code else ""
    screen.paragraph(f"{mark} {finding.seen}{code}", "  ", "    ", style if trouble else "")
    for line in finding.evidence if trouble or verbose else ():
        screen.paragraph(line, "      | ", "        ", "dim")
    if trouble and finding.remedy:
        screen.paragraph(finding.remedy, "      ")
    if trouble and finding.command:
        screen.line(styled(f"      $ {finding.command}", "cyan"))


def report_machine(screen: Screen, about: About, target: str, log: Path | None) -> int:
    """Look at the machine and write the report to `target` (a file, a folder, or - for standard output).

    `log`: the file it shows the end of. Returns the doctor's exit code.
    """
    from mscli.doctor.report import Subject, report

    path = None if target == STDOUT else _place(expanded(target))
    ctx, broken = context_in_spite(about)
    seen = visit(screen, ctx, about)
    name = about.profile or (about.file.stem if about.file else None)
    text = report(ctx, seen.findings, Subject(broken, name, log))
    if path is not None:
        _write(path, text)
    if screen.json_mode:
        shown = {"report_file": str(path) if path else None, "report": None if path else text}
        screen.data({**visit_json(seen), **shown})
    elif path is None:
        screen.text(text)
    else:
        screen.text(str(path))
        screen.note(
            f"{len(text.splitlines())} lines. Secrets, names, addresses and prompts were removed; read it before "
            "you share it."
        )
    return exit_code(seen, about)


def _place(path: Path) -> Path:
    """The file to write; in a folder one named after the time. Raises FILE for a file that is no report."""
    if path.is_dir():
        return path / f"mscli-report-{time.strftime('%Y-%m-%d-%H%M%S')}.md"
    if path.exists() and not _is_report(path):
        raise MscliError(
            Code.FILE,
            f"{path} already exists and is not a report",
            "Name another file, or a folder: mscli doctor --report .",
        )
    return path


def _is_report(path: Path) -> bool:
    from mscli.doctor.report import TITLE

    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(len(TITLE)).decode(errors="replace") == TITLE


def _write(path: Path, text: str) -> None:
    from mscli.instances.store import write_private

    try:
        write_private(path, text)
    except OSError as fault:
        raise MscliError(
            Code.FILE, f"{path} cannot be written: {fault.strerror}", "Name another file, or - for standard output."
        ) from fault


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
        if outcomes:
            screen.text("")
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
