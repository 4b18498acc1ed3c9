"""`mscli doctor`: what is wrong with this machine, or what an engine's log says about why it failed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.doctor_view import FOUND, as_json, show_causes
from mscli.cli.options import Json, ProfileFile
from mscli.cli.screen import Screen, open_screen
from mscli.errors import Code, Exit, MscliError

if TYPE_CHECKING:
    from mscli.doctor.facts import Facts
    from mscli.doctor.live.scene import Scene


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = "Examples: mscli doctor  |  mscli doctor small-q4 --only gpu  |  mscli doctor --log vllm.log  |  "
    app.command("doctor", epilog=f"{examples}journalctl -u ollama | mscli doctor --log -")(doctor)


def doctor(
    ctx: typer.Context,
    profile: Annotated[
        str | None, typer.Argument(metavar="[PROFILE]", help="Also all that this profile needs.")
    ] = None,
    file: ProfileFile = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="AREA", help="Only this area; repeatable.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Evidence and remedies of every check.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 5 for warnings too.")] = False,
    log: Annotated[
        str | None, typer.Option("--log", metavar="FILE|NAME|-", help="A log file, an instance, or - for input.")
    ] = None,
    backend: Annotated[str | None, typer.Option("--backend", help="The engine that wrote the log, if known.")] = None,
    here: Annotated[bool, typer.Option("--here", help="The log is from this machine: weigh in what it shows.")] = False,
    json: Json = False,
) -> int:
    """Look for what keeps models from running on this machine, or read an engine's log and name the causes it shows.

    Exits with 5 when a failure or a cause is found, else with 0.
    """
    screen = open_screen(ctx, json)
    if log is not None:
        return _of_log(screen, log, backend, here)
    return _of_machine(screen, profile, file, only or [], verbose, strict)


def _of_machine(
    screen: Screen, profile: str | None, file: Path | None, only: list[str], verbose: bool, strict: bool
) -> int:
    from mscli.cli.findings_view import as_json as finding_json
    from mscli.cli.findings_view import progress, show_findings
    from mscli.doctor.live.check import AREAS, FAIL, WARN
    from mscli.doctor.live.examine import checks, examine

    if unknown := [area for area in only if area not in AREAS]:
        raise MscliError(Code.USAGE, f"there is no area {unknown[0]!r}", f"There are: {', '.join(AREAS)}")
    scene = _scene(profile, file, only)
    areas = only or [area for area in AREAS if area != "profile" or scene.chosen]
    begun = time.monotonic()
    with progress(screen) as listener:
        findings = examine(scene, checks(areas), listener)
    seconds = time.monotonic() - begun
    if screen.json_mode:
        screen.data({"findings": [finding_json(found) for found in findings], "seconds": round(seconds, 3)})
    else:
        show_findings(screen, findings, verbose, seconds)
    bad = {FAIL, WARN} if strict else {FAIL}
    return Exit.FINDINGS if any(found.status in bad for found in findings) else Exit.DONE


def _scene(profile: str | None, file: Path | None, only: list[str]) -> Scene:
    from mscli.cli.wish import only_one
    from mscli.doctor.live.scene import Scene
    from mscli.lifecycle.decision import chosen
    from mscli.paths import places

    only_one(profile, file)
    wanted = chosen(profile, file, places()) if profile or file else None
    return Scene(places(), chosen=wanted, asked=frozenset(only))


def _of_log(screen: Screen, log: str, backend: str | None, here: bool) -> int:
    from mscli.doctor.diagnosis import diagnose

    text, cut, own = _read(log)
    if cut:
        screen.note("The log is long: its last 50 MB were read.", "dim")
    found = diagnose(text, backend, _facts() if here or own else None)
    if screen.json_mode:
        screen.data({"causes": [as_json(finding) for finding in found], "cut": cut})
    else:
        show_causes(screen, found, empty=not text.strip())
    return Exit.FINDINGS if found and found[0].confidence >= FOUND else Exit.DONE


def _read(log: str) -> tuple[str, bool, bool]:
    """The text, whether it is only the end of the log, and whether it is the log of an instance of this machine."""
    from mscli.doctor.log import READ_BYTES, read_log, read_stream

    if log == "-":
        return *read_stream(sys.stdin.buffer, READ_BYTES), False
    path, own = Path(log), False
    if not path.exists() or path.is_dir():
        path, own = _instance_log(log), True
    try:
        return *read_log(path), own
    except OSError as fault:
        raise MscliError(
            Code.FILE, f"cannot read {path}: {fault.strerror}", "Check its rights, or pipe it in."
        ) from fault


def _instance_log(name: str) -> Path:
    """The log of an instance, also of one that failed. Raises FILE when there is neither such a file nor instance."""
    from mscli.lifecycle.records import Records
    from mscli.paths import places

    records = Records(places())
    path = records.run_dir(name) / "log"
    if "/" in name or name in (".", "..") or not path.is_file():
        known = ", ".join(records.names())
        hint = f"Instances with a log: {known}" if known else "Give the path of a log, or - to read standard input."
        raise MscliError(Code.FILE, f"there is no file and no instance {name!r}", hint)
    return path


def _facts() -> Facts:
    from mscli.doctor.facts import facts_of
    from mscli.inventory.detect import detect
    from mscli.paths import hub_cache

    return facts_of(detect(hub_cache()))
