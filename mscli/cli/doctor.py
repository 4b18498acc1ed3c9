"""`mscli doctor`: what is wrong with this machine, or what an engine's log says about why it failed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.screen import Screen, open_screen
from mscli.cli.tree import Commands, Container, Json, ProfileFile
from mscli.cli.typed import CONTAINED
from mscli.errors import Code, Exit, MscliError

if TYPE_CHECKING:
    from mscli.diagnosis.causes import Cause, Facts
    from mscli.diagnosis.diagnose import Diagnosis
    from mscli.diagnosis.excerpt import Excerpt
    from mscli.doctor.checks.run import Verdict

_EPILOG = (
    "Examples: mscli doctor  |  mscli doctor small-q4 --only gpu  |  mscli doctor --log vllm.log  |  "
    "journalctl -u ollama | mscli doctor --log -  |  mscli doctor --fix --dry-run  |  mscli doctor small-q4 --report ."
)


_FOUND = 0.5
_SURE = 0.85

_EMPTY = "The log is empty. Start the engine again and capture its output, including standard error."
_NEXT = (
    "Next: give the whole log from the start of the engine, not only its last lines; with Ollama run the "
    "server with OLLAMA_DEBUG=1, with vLLM VLLM_LOGGING_LEVEL=DEBUG, with several GPUs NCCL_DEBUG=INFO; and look at "
    "the kernel's log: sudo dmesg | tail -50"
)


def doctor(
    ctx: typer.Context,
    profile: Annotated[
        str | None, typer.Argument(metavar="[PROFILE]", help="Check what this profile needs as well.")
    ] = None,
    file: ProfileFile = None,
    container: Container = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="AREA", help="Check only this area (repeatable).")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show evidence and remedies of every check.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 5 for warnings too.")] = False,
    log: Annotated[
        str | None, typer.Option("--log", metavar="LOG", help="Diagnose a log: a file, an instance, or - (stdin).")
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", metavar="ENGINE", help="Name the engine that wrote the log.")
    ] = None,
    here: Annotated[bool, typer.Option("--here", help="The log is of this machine: check here what it shows.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Apply safe fixes to mscli's own files.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --fix: show the fixes, change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --fix: stop leftover processes too.")] = False,
    report: Annotated[
        str | None,
        typer.Option("--report", metavar="PATH", help="Write a redacted report (- prints it)."),
    ] = None,
    json: Json = False,
) -> int:
    """Find out why models do not run here, or why one failed.

    --log reads an engine's log and names the causes that it shows. --fix applies safe fixes to mscli's own records,
    processes and your profiles, and prints commands for the rest; drivers, services and other processes are never
    touched. --report writes a redacted support report in Markdown (with --log NAME: about that instance). Exits with 5
    when a failure or a cause is found, else with 0.
    """
    screen = open_screen(ctx, json)
    _refuse_mixed(fix, report is not None, dry_run or yes, log is not None)
    if log is not None and report is None:
        return _of_log(screen, log, backend, here)
    from mscli.cli.doctor_machine import About, examine_machine, report_machine

    about = About(profile, file, tuple(only or ()), verbose, strict, CONTAINED if container else None)
    if fix:
        from mscli.cli.doctor_machine import fix_machine

        return fix_machine(screen, about, dry_run, yes)
    if report is not None:
        return report_machine(screen, about, report, _log_file(log) if log is not None else None)
    return examine_machine(screen, about)


def _refuse_mixed(fix: bool, report: bool, for_fix: bool, log: bool) -> None:
    """Raise USAGE for options that mean nothing together."""
    if fix and (report or log):
        raise MscliError(Code.USAGE, "--fix cannot be used with --report or --log", "Run them one after the other.")
    if for_fix and not fix:
        raise MscliError(Code.USAGE, "--dry-run and --yes need --fix", "Add it: mscli doctor --fix --dry-run")


def _of_log(screen: Screen, log: str, backend: str | None, here: bool) -> int:
    from mscli.diagnosis.diagnose import read

    text, own = _read(log)
    if text.cut:
        screen.note("The log is long: its beginning, its end and the first errors between them were looked at.", "dim")
    live = here or own
    seen = read(text, backend, _facts() if live else None)
    seen, verdicts = _live(seen) if live and seen.causes else (seen, {})
    end = _crash(log, silent=not seen.errors) if own and not seen.failed else None
    if screen.json_mode:
        causes = [_cause_json(cause, verdicts.get(cause.code)) for cause in seen.causes]
        screen.data({"served": seen.served, "causes": causes, "errors": list(seen.errors), "cut": text.cut, "end": end})
    elif end:
        screen.paragraph(end)
        _show_errors(screen, seen)
        screen.paragraph(f"Start it again: mscli restart {_own_name(log)}")
    else:
        _show_causes(screen, seen, verdicts, empty=text.empty)
    return Exit.FINDINGS if seen.failed or end else Exit.DONE


def _own_name(log: str) -> str:
    """The instance that `--log` names; without a name the only one that runs, or else that crashed."""
    from mscli.instances.records import Records, the_one
    from mscli.paths import places

    return log or the_one(Records(places()), None, "mscli doctor --log", dead=True).name


def _crash(log: str, silent: bool) -> str | None:
    """How an instance ended whose log names no cause, with its signal or the kernel's word; None: it did not crash.
    `silent`: its log tells of no error either."""
    import signal

    from mscli.instances.process import kernel_word
    from mscli.instances.records import Records, running
    from mscli.paths import places

    record = Records(places()).get(_own_name(log))
    if record is None or record.stopped_at is not None or record.identity is None or running(record):
        return None
    who, status = f"{record.name} (PID {record.identity.pid})", record.last_end.status if record.last_end else 0
    if word := kernel_word(record.identity.pid):
        return f"{who} was ended by the kernel: {word}"
    if status < 0:
        return f"{who} was killed by {signal.Signals(-status).name}, and its log shows no cause"
    if status:
        return f"{who} ended with status {status}, and its log shows no cause that mscli knows"
    if not silent:
        return f"{who} ended, and its log shows no cause that mscli knows: perhaps a signal killed it"
    return f"{who} ended without a message in its log: most likely a signal killed it (SIGKILL leaves no trace)"


def _read(log: str) -> tuple[Excerpt, bool]:
    """What can tell of a log, and whether it is the log of an instance of this machine."""
    from mscli.diagnosis.excerpt import excerpt_of
    from mscli.instances.log import last_start

    if log == "-":
        return excerpt_of(sys.stdin.buffer), False
    path = _log_file(log)
    own = path != Path(log)
    try:
        with path.open("rb") as handle:
            if path.is_file():
                _refuse_no_log(path, handle.read(8))
                handle.seek(0)
            if own:
                handle.seek(last_start(path))
            return excerpt_of(handle), own
    except OSError as fault:
        raise MscliError(
            Code.FILE, f"cannot read {path}: {fault.strerror}", "Check its permissions, or pipe it in."
        ) from fault


# How files begin that are no log, and what to unpack them with.
_NO_LOG = {
    b"\x1f\x8b": ("compressed (gzip)", "zcat"), b"\x28\xb5\x2f\xfd": ("compressed (zstd)", "zstdcat"),
    b"\xfd7zXZ": ("compressed (xz)", "xzcat"), b"BZh": ("compressed (bzip2)", "bzcat"),
    b"PK\x03\x04": ("a zip archive", "unzip -p"), b"\x7fELF": ("a program", None), b"GGUF": ("a model", None),
}  # fmt: skip


def _refuse_no_log(path: Path, head: bytes) -> None:
    """Raises USAGE for a file in which no line can be read, such as a log that was rotated and compressed."""
    for begins, (what, unpack) in _NO_LOG.items():
        if head.startswith(begins):
            hint = f"Unpack it on the way: {unpack} {shlex.quote(str(path))} | mscli doctor --log -" if unpack else ""
            raise MscliError(Code.USAGE, f"{path} is {what}, not a log", hint or "Give the path of a log.")


def _log_file(log: str) -> Path:
    """The file that `log` names: its path, or the log of an instance. Raises FILE when there is neither."""
    path = Path(log)
    return path if log and path.exists() and not path.is_dir() else _instance_log(_own_name(log))


def _instance_log(name: str) -> Path:
    """The log of an instance, also of one that failed. Raises FILE when there is neither such a file nor instance."""
    from mscli.instances.records import Records
    from mscli.instances.store import is_name
    from mscli.paths import places

    records = Records(places())
    path = records.run_dir(name) / "log" if is_name(name) else None
    if path is None or not path.is_file():
        known = ", ".join(records.names())
        hint = f"Instances with a log: {known}" if known else "Give the path of a log, or - to read standard input."
        raise MscliError(Code.FILE, f"no file or instance is named {name!r}", hint)
    return path


def _facts() -> Facts:
    from mscli.diagnosis.causes import facts_of
    from mscli.inventory.detect import detect
    from mscli.paths import hub_cache

    return facts_of(detect(hub_cache()))


def _live(seen: Diagnosis) -> tuple[Diagnosis, Mapping[str, Verdict]]:
    """The diagnosis with what this machine itself says of its causes."""
    from mscli.doctor.checks.check import CheckContext
    from mscli.doctor.checks.run import judge
    from mscli.frozen import replace
    from mscli.paths import places

    causes, verdicts = judge(seen.causes, CheckContext(places()))
    return replace(seen, causes=causes), verdicts


def _cause_json(finding: Cause, verdict: Verdict | None) -> dict[str, object]:
    """One cause for scripts. `live`: what this machine says of it, None where nothing was asked or told."""
    live = {"verdict": verdict.verdict, "check": verdict.check, "seen": verdict.seen} if verdict else None
    return {
        "code": finding.code,
        "confidence": finding.confidence,
        "evidence": list(finding.evidence),
        "summary": finding.summary,
        "remedy": finding.remedy,
        "scope": finding.scope,
        "live": live,
    }


def _show_causes(screen: Screen, seen: Diagnosis, verdicts: Mapping[str, Verdict], empty: bool) -> None:
    """Causes, evidence and remedies as text; or that there is none, and what to do next. `empty`: no text."""
    from mscli.diagnosis.causes import CAUSES

    if seen.served and not seen.went_down:
        screen.paragraph(f"{seen.engine} started and serves{_refusals(seen)}")
    elif not seen.causes:
        screen.paragraph("Cause unknown: nothing in this log matches a cause that mscli knows.")
        _show_errors(screen, seen)
        screen.paragraph(_EMPTY if empty else _NEXT)
    elif not seen.likely:
        screen.paragraph(f"Cause unknown; nearest: {', '.join(cause.code for cause in seen.causes)}")
    for number, finding in enumerate(seen.causes, 1):
        screen.paragraph(f"{number}. {finding.code} ({_how_sure(finding.confidence)}): {finding.summary}", "", "   ")
        if verdict := verdicts.get(finding.code):
            screen.paragraph(f"{verdict.verdict} by {verdict.check}: {verdict.seen}", "   ", "     ")
        for line in finding.evidence:
            screen.paragraph(line, "   | ", "     ", "dim")
        screen.paragraph(finding.remedy, "   ")
        if finding.confidence < _FOUND and finding.code not in verdicts and (tells := CAUSES[finding.code].tells):
            screen.paragraph(f"To find out: {tells}", "   ", "     ")


def _show_errors(screen: Screen, seen: Diagnosis) -> None:
    """What the log complains of last, for a reader who may know it."""
    if seen.errors:
        screen.paragraph("Its last errors:")
    for line in seen.errors:
        screen.paragraph(line, "   | ", "     ", "dim")


def _refusals(seen: Diagnosis) -> str:
    """How many requests were refused, and why: `; 1 request was refused: model_not_found`. Lines that are alike are
    looked at a few times only, so that there may have been more."""
    if not seen.refusals:
        return ""
    requests = "1 request was" if seen.refused == 1 else f"at least {seen.refused} requests were"
    return f"; {requests} refused: {', '.join(seen.refusals)}"


def _how_sure(confidence: float) -> str:
    words = "almost certain" if confidence >= _SURE else "likely" if confidence >= _FOUND else "possible"
    return f"{words}, {confidence:.0%}"


COMMANDS: Commands = {"doctor": (doctor, _EPILOG)}
