"""`mscli doctor`: what an engine's log says about why it failed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.doctor_view import FOUND, as_json, show_causes
from mscli.cli.options import Json
from mscli.cli.screen import open_screen
from mscli.errors import Code, Exit, MscliError

if TYPE_CHECKING:
    from mscli.doctor.facts import Facts


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = "Examples: mscli doctor --log vllm.log  |  mscli doctor --log rehearsal  |  journalctl -u ollama | "
    app.command("doctor", epilog=f"{examples}mscli doctor --log -")(doctor)


def doctor(
    ctx: typer.Context,
    log: Annotated[
        str | None, typer.Option("--log", metavar="FILE|NAME|-", help="A log file, an instance, or - for input.")
    ] = None,
    backend: Annotated[str | None, typer.Option("--backend", help="The engine that wrote the log, if known.")] = None,
    here: Annotated[bool, typer.Option("--here", help="The log is from this machine: weigh in what it shows.")] = False,
    json: Json = False,
) -> int:
    """Read a log of vLLM, Ollama, llama.cpp, Transformers, mistral.rs or Docker and name the causes it shows.

    Exits with 5 when a cause is found, with 0 when nothing in the log supports one.
    """
    from mscli.doctor.diagnosis import diagnose

    screen = open_screen(ctx, json)
    if log is None:
        raise MscliError(Code.USAGE, "mscli doctor reads logs only, so far: say which", "mscli doctor --log FILE")
    text, cut, own = _read(log)
    if cut:
        screen.note("The log is long: its last 50 MB were read.", "dim")
    found = diagnose(text, backend, _facts() if here or own else None)
    if json:
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
