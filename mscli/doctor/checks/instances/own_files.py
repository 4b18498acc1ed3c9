"""The folders and files of mscli's own: whose they are, and whether other users can change or read them.

Who may write to the folder of records can plant one, and have any process of this user stopped; who may write to the
folder of engines can have a program run.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mscli.doctor.checks.check import CheckContext
from mscli.frozen import frozen
from mscli.instances.records import Records

OWNER, WRITE, READ = "owner", "write", "read"
_OTHERS_WRITE, _OTHERS = 0o022, 0o077


@frozen
class Unsafe:
    """A folder or file of ours that others can use. `id`: short, for a fix. `what`: for people. `problem`: OWNER (it
    belongs to another user), WRITE or READ (others can). `mode`: what it should have. `shown`: what it has."""

    id: str
    path: Path
    what: str
    problem: str
    mode: int
    shown: str


def unsafe_files(ctx: CheckContext) -> tuple[Unsafe, ...]:
    """Each one, looked at once: before anything takes the lock, which closes the folder of records by itself.

    Links are left out: what they point to is not ours to judge, and records are never read through one.
    """
    return ctx.once("own files", lambda: tuple(_unsafe(ctx)))


def _unsafe(ctx: CheckContext) -> Iterator[Unsafe]:
    places = ctx.places
    judged = partial(_judged, _users(places.state))
    shared = {
        "state": places.state,
        "instances": places.instances,
        "config": places.config,
        "profiles": places.profiles,
        "data": places.data,
        "engines": places.engines,
    }
    for name, path in shared.items():
        yield from judged(name, path, f"mscli's folder of {name} ({path})", 0o700, _OTHERS_WRITE)
    for path in sorted(places.engines.glob("*/")):
        yield from judged(f"engines/{path.name}", path, f"the installed engine {path.name}", 0o755, _OTHERS_WRITE)
    for path in sorted([*places.profiles.glob("*.yaml"), *places.profiles.glob("models/*.yaml")]):
        yield from judged(f"profiles/{path.name}", path, f"the profile {path.name}", 0o600, _OTHERS_WRITE)
    for folder in Records(places).folders():
        name = folder.name
        yield from judged(name, folder, f"the log of {name}", 0o700, _OTHERS)
        yield from judged(f"{name}/key", folder / "key", f"the API key of {name}", 0o600, _OTHERS)
        yield from judged(f"{name}/record", folder / "record.json", f"the record of {name}", 0o600, _OTHERS_WRITE)


def _users(state: Path) -> frozenset[int]:
    """Whose files are trusted: this user's; for root, who may look at anybody's, also those of the owner of all."""
    own = os.geteuid()
    try:
        return frozenset((own,)) if own else frozenset((own, state.stat().st_uid))
    except OSError:
        return frozenset((own,))


def _judged(users: frozenset[int], id: str, path: Path, what: str, mode: int, barred: int) -> Iterator[Unsafe]:
    """Nothing where it is not there, or as it should be. `users`: whose it may be. `barred`: bits it must not have."""
    try:
        found = path.lstat()
    except OSError:  # none, or it has just been removed
        return
    if stat.S_ISLNK(found.st_mode):
        return
    shown = f"{stat.filemode(found.st_mode)} uid {found.st_uid} {path}"
    if found.st_uid not in users:
        yield Unsafe(id, path, what, OWNER, mode, shown)
    elif found.st_mode & barred:
        yield Unsafe(id, path, what, WRITE if found.st_mode & _OTHERS_WRITE else READ, mode, shown)


def close(path: Path, mode: int) -> None:
    """Give a folder or file this mode, never through a link. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fchmod(handle, mode)
    finally:
        os.close(handle)
