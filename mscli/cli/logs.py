"""`mscli logs`: what the engine wrote."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from mscli.cli.options import Instance, Json
from mscli.cli.screen import Screen, open_screen
from mscli.errors import Code, MscliError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("logs", epilog="Examples: mscli logs -n 50  |  mscli logs rehearsal -f")(logs)


def logs(
    ctx: typer.Context,
    name: Instance = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the engine ends or Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 100,
    json: Json = False,
) -> None:
    """Print the last lines of an instance's log, also after it has stopped or failed."""
    screen = open_screen(ctx, json)
    path, lives = _log(name)
    if json and follow:
        raise MscliError(Code.USAGE, "--follow never ends, --json is one object", "Leave one of them away.")
    last = _tail(path, lines)
    if json:
        screen.data({"log": str(path), "lines": last})
        return
    for line in last:
        screen.text(line)
    if follow:
        sys.stdout.flush()
        _follow(screen, path, lives)


def _log(name: str | None) -> tuple[Path, Callable[[], bool]]:
    """The log meant, and a function that tells whether its writer lives."""
    from mscli.instances.records import Records, running, the_one
    from mscli.instances.store import check_name
    from mscli.paths import places

    records = Records(places())
    if name is None:
        record = the_one(records, None)
        return record.log, lambda: running(record)
    path = records.run_dir(check_name(name)) / "log"  # a failed start leaves a log without a record
    if not path.exists():
        raise MscliError(Code.NOT_RUNNING, f"there is no log of {name!r}", "What runs: mscli status --all")
    known = records.get(name)
    return path, lambda: known is not None and running(known)


def _tail(path: Path, count: int) -> list[str]:
    """The last `count` lines, read from the end: logs grow to gigabytes."""
    if count == 0:
        return []
    with path.open("rb") as handle:
        end = handle.seek(0, 2)
        block = b""
        while end > 0 and block.count(b"\n") <= count:
            step = min(end, 64 * 1024)
            end -= step
            handle.seek(end)
            block = handle.read(step) + block
    return block.decode(errors="replace").splitlines()[-count:]


def _follow(screen: Screen, path: Path, lives: Callable[[], bool]) -> None:
    import time

    from mscli.instances.log import LogTail

    tail = LogTail(path)
    while True:
        goes_on = lives()
        for line in tail.lines():
            screen.piece(line + "\n")
        if not goes_on:
            return
        time.sleep(0.2)
