"""One run of the doctor on this machine: what is looked at, how findings are shown, and the report of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from mscli.cli.options import only_one
from mscli.cli.screen import Screen
from mscli.doctor.checks.check import AREAS, CRASHED, FAIL, OK, SKIPPED, WARN, Finding
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.run import checks, examine
from mscli.errors import Code, Exit, MscliError
from mscli.instances.json_values import to_json
from mscli.lifecycle.decision import chosen
from mscli.paths import places

if TYPE_CHECKING:
    from rich.text import Text

STDOUT = "-"
_MARKS = {
    OK: ("✓", "green"),
    WARN: ("!", "yellow"),
    FAIL: ("✗", "bold red"),
    SKIPPED: ("-", "dim"),
    CRASHED: ("?", "magenta"),
}
_TROUBLE = (WARN, FAIL, CRASHED)


@dataclass(frozen=True)
class About:
    """What is looked at. `profile` or `file`: also all that this profile needs. `only`: areas, empty for all.

    `strict`: warnings count for the exit code too.
    """

    profile: str | None
    file: Path | None
    only: tuple[str, ...]
    verbose: bool
    strict: bool


@dataclass(frozen=True)
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
    wanted = chosen(about.profile, about.file, places()) if about.profile or about.file else None
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
        raise MscliError(Code.USAGE, f"there is no area {unknown[0]!r}", f"There are: {', '.join(AREAS)}")
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
    from rich.console import Console

    done = 0
    with Console(stderr=True).status("looking at this machine") as status:

        def heard(finding: Finding) -> None:
            nonlocal done
            done += 1
            status.update(f"looking at this machine: {done} findings, last {finding.id}")

        yield heard


def show_visit(screen: Screen, seen: Visit, verbose: bool) -> None:
    """Every finding on a line of its own below its area; evidence and remedy where something is wrong, or `verbose`.

    What was skipped is one line an area, with the first reason, unless `verbose`.
    """
    for area, group in groupby(seen.findings, key=lambda finding: finding.area):
        screen.show(_styled(area, "bold"))
        found = list(group)
        for finding in found if verbose else [each for each in found if each.status != SKIPPED]:
            screen.show(*_lines(finding, verbose))
        skipped = [] if verbose else [each for each in found if each.status == SKIPPED]
        if skipped:
            more = f" ({len(skipped)} checks skipped, -v lists them)" if len(skipped) > 1 else ""
            screen.show(_styled(f"  - {skipped[0].seen}{more}", "dim"))
    counts = {status: sum(found.status == status for found in seen.findings) for status in _MARKS}
    words = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    screen.text(f"{words or 'nothing was looked at'} ({seen.seconds:.1f} s)")


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


def report_machine(screen: Screen, about: About, target: str, log: Path | None) -> int:
    """Look at the machine and write the report to `target` (a file, a folder, or - for standard output).

    `log`: the file it shows the end of. Returns the doctor's exit code.
    """
    from mscli.doctor.report.report import report
    from mscli.doctor.report.runs import Subject

    path = None if target == STDOUT else _place(Path(target).expanduser())
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
            f"{len(text.splitlines())} lines. Secrets, names, addresses and prompts were removed; read it once before "
            "you pass it on."
        )
    return exit_code(seen, about)


def _place(path: Path) -> Path:
    """The file to write; in a folder one named after the time. Raises FILE for a file that is no report."""
    if path.is_dir():
        return path / f"mscli-report-{time.strftime('%Y-%m-%d-%H%M%S')}.md"
    if path.exists() and not _is_report(path):
        raise MscliError(
            Code.FILE,
            f"{path} is there already and is no report",
            "Name another file, or a folder: mscli doctor --report .",
        )
    return path


def _is_report(path: Path) -> bool:
    from mscli.doctor.report.report import TITLE

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
