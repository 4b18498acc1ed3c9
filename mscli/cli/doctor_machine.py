"""One visit of the doctor to this machine, as the command line asks for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mscli.cli.screen import Screen
from mscli.errors import Code, Exit, MscliError

if TYPE_CHECKING:
    from mscli.doctor.checks.check import Finding
    from mscli.doctor.checks.context import CheckContext


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
        show_visit(screen, seen, about)
    return exit_code(seen, about)


def visit(screen: Screen, ctx: CheckContext, about: About) -> Visit:
    """Run the checks, with progress on a terminal. Raises USAGE for an area that there is not."""
    from mscli.cli.findings_view import progress
    from mscli.doctor.checks.run import checks, examine

    wanted = checks(areas_of(about))
    begun = time.monotonic()
    with progress(screen) as listener:
        findings = examine(ctx, wanted, listener)
    return Visit(findings, time.monotonic() - begun)


def context_of(about: About) -> CheckContext:
    """The machine, and the profile asked about. Raises as the catalogue does for one that is not there or broken."""
    from mscli.cli.overrides import only_one
    from mscli.doctor.checks.context import CheckContext
    from mscli.lifecycle.decision import chosen
    from mscli.paths import places

    only_one(about.profile, about.file)
    wanted = chosen(about.profile, about.file, places()) if about.profile or about.file else None
    return CheckContext(places(), chosen=wanted, asked=frozenset(about.only))


def context_in_spite(about: About) -> tuple[CheckContext, MscliError | None]:
    """As `context_of`, but a profile whose file is broken is left out, and told."""
    from mscli.doctor.checks.context import CheckContext
    from mscli.paths import places

    try:
        return context_of(about), None
    except MscliError as fault:
        if fault.code is not Code.PROFILE_INVALID:
            raise
        return CheckContext(places(), asked=frozenset(about.only)), fault


def areas_of(about: About) -> Sequence[str]:
    """The areas to look at. Raises USAGE for an area that there is not."""
    from mscli.doctor.checks.check import AREAS

    if unknown := [area for area in about.only if area not in AREAS]:
        raise MscliError(Code.USAGE, f"there is no area {unknown[0]!r}", f"There are: {', '.join(AREAS)}")
    return about.only or AREAS


def visit_json(seen: Visit) -> dict[str, object]:
    """A visit for scripts."""
    from mscli.cli.findings_view import as_json

    return {"findings": [as_json(found) for found in seen.findings], "seconds": round(seen.seconds, 3)}


def show_visit(screen: Screen, seen: Visit, about: About) -> None:
    """A visit for people."""
    from mscli.cli.findings_view import show_findings

    show_findings(screen, seen.findings, about.verbose, seen.seconds)


def exit_code(seen: Visit, about: About) -> Exit:
    """5 where something fails (with `strict` also where something is doubtful), else 0."""
    from mscli.doctor.checks.check import FAIL, WARN

    bad = {FAIL, WARN} if about.strict else {FAIL}
    return Exit.FINDINGS if any(found.status in bad for found in seen.findings) else Exit.DONE
