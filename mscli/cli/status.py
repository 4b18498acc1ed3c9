"""`mscli status` and `mscli logs`: what runs, whether it answers, and what the engine wrote."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.screen import Screen, open_screen
from mscli.cli.tree import Commands, Instance, Json
from mscli.cli.typed import UNITS_S
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.instances.records import Record


def status(
    ctx: typer.Context,
    name: Instance = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Show stopped instances too.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every 2 s until Ctrl-C.")] = False,
    json: Json = False,
) -> int:
    """Show instances and their state.

    Exits with 3 when nothing is running.
    """
    from mscli.cli.instance_view import show_status, watch_status
    from mscli.instances.store import Store
    from mscli.paths import places

    show = watch_status if watch else show_status
    return show(open_screen(ctx, json), Store(places()), name, all_)


_DEFAULT_LINES = 100


def logs(
    ctx: typer.Context,
    name: Instance = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Follow the log until the engine ends.")] = False,
    lines: Annotated[
        int | None,
        typer.Option("-n", "--lines", metavar="N", min=0, help=f"Show the last N lines (default: {_DEFAULT_LINES})."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Show lines newer than this: 10m, 2h, 18:30.")
    ] = None,
    grep: Annotated[str | None, typer.Option("--grep", metavar="REGEX", help="Show only lines that match.")] = None,
    json: Json = False,
) -> None:
    """Show an instance's log, even after it stopped or failed."""
    screen = open_screen(ctx, json)
    if json and follow:
        raise MscliError(Code.USAGE, "--follow and --json cannot be used together", "Leave one of them out.")
    begins, matches = _since(since), _matching(grep)
    path, lives = _log(name, follow)
    shown = _selected(path, lines, begins, matches)
    if json:
        screen.rows({"log": str(path)}, "lines", shown)
        return
    _print(screen, shown)
    if follow:
        screen.flush()
        _follow(screen, path, lives, matches)


def _log(name: str | None, follow: bool) -> tuple[Path, Callable[[], bool]]:
    """The log meant, and a function that tells whether its writer lives."""
    from mscli.instances.records import Records, running, the_one
    from mscli.instances.store import check_name
    from mscli.paths import places

    records = Records(places())
    record = the_one(records, None, "mscli logs", dead=True) if name is None else records.get(check_name(name))
    if record and record.owner is not None and running(record):
        return _of_server(record, follow), lambda: running(record)
    if name is None:
        assert record is not None
        return record.log, lambda: running(record)
    path = records.run_dir(check_name(name)) / "log"  # a failed start leaves a log without a record
    if not path.exists():
        raise MscliError(Code.NOT_RUNNING, f"there is no log of {name!r}", "To see all instances: mscli status --all")
    return path, lambda: record is not None and running(record)


def _of_server(record: Record, follow: bool) -> Path:
    """The log of a server that mscli did not start: its file, or what its journal or its container's engine prints, in
    a file that goes with this process. Waits for that at most 10 s.

    Raises FILE, with where it is, where it cannot be read, or followed.
    """
    import subprocess

    from mscli.engines.engine import Hosted
    from mscli.engines.table import engine

    known = engine(record.plan.engine)
    if not isinstance(known, Hosted):  # a record that somebody wrote
        return record.log
    where = known.log_of((record.host, record.port))
    if where.file and os.access(where.file, os.R_OK):
        return where.file
    said = b""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        if where.command and not follow:
            said = subprocess.run(where.command, capture_output=True, timeout=10, check=False).stdout
    if not said:
        raise MscliError(
            Code.FILE,
            f"{record.name} is on a server that mscli did not start ({record.owner}); its log is {where.words}",
            "Read it there (with sudo if it belongs to another user).",
            {"owner": record.owner},
        )
    copy = os.memfd_create("log")
    os.write(copy, said)
    return Path(f"/proc/self/fd/{copy}")


def _selected(
    path: Path, count: int | None, begins: float | None, matches: Callable[[str], bool] | None
) -> Iterable[str]:
    """The lines to show: the last `count` of those since `begins` (seconds since the epoch) that match."""
    from mscli.instances.log import last_lines

    if begins is None and matches is None:
        return last_lines(path, _DEFAULT_LINES if count is None else count)
    found: Iterable[str] = last_lines(path, None)
    if begins is not None:
        found = _from(found, begins)
    if matches is not None:
        found = filter(matches, found)
    return found if count is None else deque(found, maxlen=count)


def _from(lines: Iterable[str], begins: float) -> Iterator[str]:
    """The lines from the first one on whose time is not before `begins`."""
    from mscli.instances.log import moment

    year = datetime.now().year
    return dropwhile(lambda line: (stamp := moment(line, year)) is None or stamp < begins, lines)


def _since(text: str | None) -> float | None:
    """The moment that --since names: a time ago (10m), one of today (18:30) or one with a date. Raises USAGE."""
    if text is None:
        return None
    if found := re.fullmatch(r"(\d+)\s*([smhd])(?:in)?", text):
        return time.time() - int(found[1]) * UNITS_S[found[2]]
    today = datetime.now().date().isoformat()
    for written in (text, f"{today} {text}"):
        try:
            return datetime.fromisoformat(written).timestamp()
        except ValueError:
            continue
    raise MscliError(Code.USAGE, f"--since {text}: not a time", "For example: --since 10m, --since 18:30")


def _matching(pattern: str | None) -> Callable[[str], bool] | None:
    """Whether a line matches; in any case of letters where the pattern has no capitals. Raises USAGE."""
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern, re.IGNORECASE if pattern.islower() else 0)
    except re.error as fault:
        raise MscliError(Code.USAGE, f"--grep {pattern}: {fault}", "Quote the regular expression.") from fault
    return lambda line: compiled.search(line) is not None


def _print(screen: Screen, lines: Iterable[str]) -> None:
    """Print until the lines end, or nobody reads them any more."""
    for line in lines:
        screen.text(line)
        if screen.lost is not None:
            return


def _follow(screen: Screen, path: Path, lives: Callable[[], bool], matches: Callable[[str], bool] | None) -> None:
    from mscli.instances.log import LogTail

    tail = LogTail(path)
    while screen.lost is None:
        continues = lives()
        _print(screen, filter(matches, tail.lines()) if matches else tail.lines())
        screen.flush()
        if not continues:
            return
        time.sleep(0.2)


COMMANDS: Commands = {
    "status": (status, "Examples: mscli status  |  mscli status --watch  |  mscli status rehearsal --json"),
    "logs": (logs, "Examples: mscli logs -n 50  |  mscli logs rehearsal -f  |  mscli logs --grep error"),
}
