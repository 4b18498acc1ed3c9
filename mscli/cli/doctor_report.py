"""`mscli doctor --report`: one file to give to whoever helps."""

from __future__ import annotations

import time
from pathlib import Path

from mscli.cli.doctor_machine import About, context_in_spite, exit_code, visit, visit_json
from mscli.cli.screen import Screen
from mscli.doctor.report.report import TITLE, report
from mscli.doctor.report.runs import Subject
from mscli.errors import Code, MscliError
from mscli.instances.store import write_private

STDOUT = "-"


def report_machine(screen: Screen, about: About, target: str, log: str | None) -> int:
    """Look at the machine and write the report to `target` (a file, a folder, or - for standard output).

    `log`: the instance or file whose log it shows. Returns the doctor's exit code.
    """
    path = None if target == STDOUT else _place(Path(target).expanduser())
    ctx, broken = context_in_spite(about)
    subject = _subject(about, broken, log)
    seen = visit(screen, ctx, about)
    text = report(ctx, seen.findings, subject)
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


def _subject(about: About, broken: MscliError | None, log: str | None) -> Subject:
    """Raises FILE for a log that is neither a file nor an instance's."""
    from mscli.cli.doctor import log_file

    name = about.profile or (about.file.stem if about.file else None)
    return Subject(broken, name, log_file(log) if log is not None else None)


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
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(len(TITLE)).decode(errors="replace") == TITLE


def _write(path: Path, text: str) -> None:
    try:
        write_private(path, text)
    except OSError as fault:
        raise MscliError(
            Code.FILE, f"{path} cannot be written: {fault.strerror}", "Name another file, or - for standard output."
        ) from fault
