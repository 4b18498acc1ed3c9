"""`mscli doctor`: what an engine's log says about why it failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.options import Json
from mscli.cli.screen import Screen, open_screen
from mscli.errors import Code, Exit, MscliError

if TYPE_CHECKING:
    from mscli.doctor.diagnosis import Finding
    from mscli.doctor.facts import Facts

_FOUND = 0.5
_SURE = 0.85


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
        screen.data({"causes": [_json(finding) for finding in found], "cut": cut})
    else:
        _show(screen, found, text)
    return Exit.FINDINGS if found and found[0].confidence >= _FOUND else Exit.DONE


def _read(log: str) -> tuple[str, bool, bool]:
    """The text, whether it is only the end of the log, and whether it is the log of an instance of this machine."""
    from mscli.doctor.log import READ_BYTES, read_log, read_stream

    if log == "-":
        return *read_stream(sys.stdin.buffer, READ_BYTES), False
    path, own = Path(log), False
    if not path.is_file():
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


def _json(finding: Finding) -> dict[str, object]:
    return {
        "code": finding.code,
        "confidence": finding.confidence,
        "evidence": list(finding.evidence),
        "summary": finding.summary,
        "remedy": finding.remedy,
    }


def _show(screen: Screen, found: Sequence[Finding], text: str) -> None:
    if not found:
        screen.text("Cause unknown: no line of this log shows a cause that mscli knows.")
        screen.text(_next(text))
        return
    for number, finding in enumerate(found, 1):
        screen.text(f"{number}. {finding.code} ({_how_sure(finding.confidence)}): {finding.summary}")
        for line in finding.evidence:
            screen.text(f"   | {line}")
        screen.text(f"   {finding.remedy}")


def _how_sure(confidence: float) -> str:
    words = "almost sure" if confidence >= _SURE else "likely" if confidence >= _FOUND else "possible"
    return f"{words}, {confidence:.0%}"


def _next(text: str) -> str:
    if not text.strip():
        return "It is empty. Start the engine again and keep what it prints, standard error too."
    return (
        "What to do next: give the whole log from the start of the engine on, not only its last lines; with Ollama run "
        "the server with OLLAMA_DEBUG=1, with vLLM VLLM_LOGGING_LEVEL=DEBUG, with several GPUs NCCL_DEBUG=INFO; and "
        "look at the kernel's log: sudo dmesg | tail -50"
    )
