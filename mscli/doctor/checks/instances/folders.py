"""The folders of our instances: records that can be read, closed to others, logs of a sensible size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mscli.doctor.checks.check import Seen, fail, ok, warn
from mscli.doctor.checks.context import CheckContext
from mscli.instances.records import Records
from mscli.planning.figures import gib

_LARGE_LOG = 2**30


def records(ctx: CheckContext) -> Iterator[Seen]:
    """Every record can be read. One that cannot is left as it is: what it started may still run."""
    good, damaged = Records(ctx.places).all()
    for each in damaged:
        yield fail(
            None,
            f"the record of {each.name} cannot be read: {each.reason}",
            "What it started may still run (`instances.unrecorded` looks). Move the file away when it is of no use.",
            str(each.path),
            command=f"mv {each.path} {each.path}.damaged",
        )
    if not damaged:
        yield ok(f"{len(good)} records can be read" if good else "there are no records")


def folders(ctx: CheckContext) -> Iterator[Seen]:
    """Folders and keys of instances are this user's, and closed to everybody else."""
    found = [seen for folder in Records(ctx.places).folders() for seen in _folder(folder)]
    yield from found
    if not found:
        yield ok("folders and keys of instances are closed to others")


def _folder(folder: Path) -> Iterator[Seen]:
    try:
        mode = folder.stat()
    except OSError:  # it has just been removed
        return
    if mode.st_uid != os.geteuid():
        yield fail(
            "permissions",
            f"the folder of {folder.name} belongs to another user (mscli run with sudo?)",
            "Give it back.",
            f"{stat.filemode(mode.st_mode)} uid {mode.st_uid} {folder}",
            command=f"sudo chown -R {os.geteuid()} {folder}",
        )
    elif mode.st_mode & 0o077:
        yield _open(folder, 0o700)
    key = folder / "key"
    if key.is_file() and key.stat().st_mode & 0o077:
        yield _open(key, 0o600)


def _open(path: Path, mode: int) -> Seen:
    what = "the API key" if path.name == "key" else "the log"
    seen = f"others on this machine may read {what} of {path.parent.name if path.name == 'key' else path.name}"
    return warn(
        None, seen, "Close it.", f"{stat.filemode(path.stat().st_mode)} {path}", command=f"chmod {mode:o} {path}"
    )


def logs(ctx: CheckContext) -> Iterator[Seen]:
    """Logs that take a gigabyte or more."""
    for log in sorted(ctx.places.instances.glob("*/log")):
        try:
            size = log.stat().st_size
        except OSError:
            continue
        if size >= _LARGE_LOG:
            remedy = "Engines append to it, so it can be emptied while they run."
            yield warn(None, f"the log of {log.parent.name} takes {gib(size)}", remedy, command=f"truncate -s 0 {log}")
