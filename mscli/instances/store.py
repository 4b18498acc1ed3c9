"""The folders in which instances are remembered: one private folder each, under one lock.

Kept apart from the typed records so that `mscli status` need not load the types of plans and models: on a common
machine that is a third of its time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.paths import Places

SCHEMA = "mscli-record/1"
LOCK_TIMEOUT_S = 120.0
_LONGEST_RECORD = 2**22
_TRY_EVERY_S = 0.01
_ASK_HOLDER_EVERY_S = 0.5
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}\Z")


@frozen
class Unreadable:
    """A record that this mscli cannot read, and why."""

    name: str
    path: Path
    reason: str


def is_name(name: str) -> bool:
    """Whether `name` can name an instance."""
    return bool(_NAME.match(name))


def check_name(name: str, new: bool = False) -> str:
    """`name` if it can name an instance. `new`: one that is about to start. Raises USAGE otherwise."""
    if not is_name(name):
        raise MscliError(
            Code.USAGE,
            f"{name!r} is not a valid instance name: letters, digits, '.', '_' and '-' only, at most 63",
            "Use another name: --name." if new else "To see all instances: mscli status --all",
        )
    return name


def parsed(name: str, path: Path, text: bytes) -> dict[str, Any] | Unreadable:
    """The text of the record of `name` as JSON data of this mscli's schema, or why it is none."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as fault:
        return Unreadable(name, path, f"not JSON: {fault}")
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        return Unreadable(name, path, f"its schema is {schema!r}; this mscli reads {SCHEMA!r}")
    if data.get("name") != name:  # its name becomes a path
        return Unreadable(name, path, f"it is the record of {str(data.get('name'))[:80]!r}")
    return dict(data)


class Store:
    """The instance folders of one user, below `places.instances`."""

    def __init__(self, places: Places) -> None:
        self.folder = places.instances

    def names(self) -> tuple[str, ...]:
        """The instances that have a record, or a folder into which this user may not look."""
        return tuple(folder.name for folder in self.folders() if _there(folder / "record.json"))

    def folders(self) -> tuple[Path, ...]:
        """Every folder of an instance, with a record or without."""
        try:  # before Python 3.11, glob("*/") gives files too
            entries = sorted(self.folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return tuple(entry for entry in entries if _NAME.match(entry.name) and entry.is_dir())

    def raw(self, name: str) -> dict[str, Any] | Unreadable | None:
        """The record of `name` as JSON data of this mscli's schema, None if there is none, or why it is unreadable."""
        text = self.text(name)
        return parsed(name, self.run_dir(name) / "record.json", text) if isinstance(text, bytes) else text

    def text(self, name: str) -> bytes | Unreadable | None:
        """The record of `name` as it stands on the disk, None if there is none, or why it cannot be read."""
        path = self.run_dir(name) / "record.json"
        try:
            return self._read(path)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            return Unreadable(name, path, "its folder is a link") if path.parent.is_symlink() else None
        except OSError as fault:
            return Unreadable(name, path, fault.strerror or str(fault))

    def _read(self, path: Path) -> bytes:
        """A file in an instance's folder: never through a link, and only this user's. Raises OSError."""
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            handle = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        finally:
            os.close(folder)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            if found.st_uid not in self._trusted():
                raise OSError(errno.EPERM, f"it belongs to another user (uid {found.st_uid})")
            return file.read(_LONGEST_RECORD)

    def _trusted(self) -> tuple[int, ...]:
        """Whose records are believed: this user's; for root, which may read all, also the owner's of all instances."""
        own = os.geteuid()
        return (own,) if own else (own, self.folder.stat().st_uid)

    def run_dir(self, name: str) -> Path:
        """The private folder of an instance: record, log, key, temporary files. Not created here. Raises USAGE."""
        return self.folder / check_name(name)

    def prepare(self, name: str) -> Path:
        """Make the instance's folder, readable by its owner alone. Raises FILE."""
        run_dir = self.run_dir(name)
        private_folder(run_dir)
        run_dir.chmod(0o700)
        return run_dir

    def purge(self, name: str) -> None:
        """Remove everything that is kept of an instance, its log included."""
        import shutil

        shutil.rmtree(self.run_dir(name), ignore_errors=True)

    def tidy(self, name: str, recorded: bool = True) -> None:
        """Remove a stopped instance's temporary files. Record, log and key stay: `restart` needs them.

        `recorded` False: its record could not be written, so the note stays that says it is stopped.
        """
        run_dir = self.run_dir(name)
        if (tmp := run_dir / "tmp").is_dir():
            import shutil  # 3 ms that a start without leftovers spares

            shutil.rmtree(tmp, ignore_errors=True)
        half_written = run_dir.glob(".record.json.*")  # by an mscli that was killed: who writes it holds the lock
        notes = [run_dir / "ready", *([run_dir / "stopping"] if recorded else [])]
        for left in (*notes, *half_written):
            left.unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Remove the record of a start that failed. Its log stays, so that `mscli logs` can still show it."""
        (self.run_dir(name) / "record.json").unlink(missing_ok=True)
        self.tidy(name)

    def mark_ready(self, name: str, mark: str) -> None:
        """Remember that this start has answered once: from now on silence means unresponsive, not starting.

        Not under the lock, for `status` never waits: where the start has ended meanwhile, the note is taken back.
        """
        noted = self.run_dir(name) / "ready"
        with contextlib.suppress(OSError):
            noted.touch()
            now = self.raw(name)
            if not isinstance(now, dict) or now.get("mark") != mark or now.get("stopped_at") is not None:
                noted.unlink()

    def was_ready(self, name: str) -> bool:
        """True once the instance has answered its health check."""
        return (self.run_dir(name) / "ready").exists()

    def mark_stopping(self, name: str) -> None:
        """Note that the instance is being stopped on purpose, before the first signal: who waits for it sees why it
        ends, and it counts as stopped even where its record cannot be written any more (a full disk)."""
        with contextlib.suppress(OSError):
            (self.run_dir(name) / "stopping").touch()

    def is_stopping(self, name: str) -> bool:
        """True once somebody has begun to stop this start of the instance."""
        return (self.run_dir(name) / "stopping").exists()

    @contextlib.contextmanager
    def lock(self, patience_s: float = 10.0) -> Iterator[None]:
        """Hold the one lock of this user's records, for milliseconds: between the last look and the spawn.

        Waits as long as it changes hands, up to LOCK_TIMEOUT_S, and at most `patience_s` for one process that keeps it.
        Raises FILE then.
        """
        private_folder(self.folder)
        path = self.folder / ".lock"
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as fault:
            raise MscliError(
                Code.FILE, f"{path} cannot be opened: {fault.strerror}", f"Look at it: ls -l {path}. It can be removed."
            ) from fault
        try:
            _wait_for_lock(handle, path, patience_s)
            yield
        finally:
            os.close(handle)


def _there(path: Path) -> bool:
    try:
        path.lstat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def private_folder(folder: Path) -> None:
    """Make a folder, and what is missing above it, for this user alone; close one that others may write to.

    Raises FILE for one that cannot be made, or belongs to another user.
    """
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat()
        if found.st_uid == os.geteuid() and found.st_mode & 0o022:
            folder.chmod(0o700)
    except OSError as fault:
        raise MscliError(
            Code.FILE, f"cannot create {folder}: {fault.strerror}", "Check its permissions, or set MSCLI_HOME."
        ) from fault
    if os.geteuid() not in (0, found.st_uid):
        raise MscliError(
            Code.FILE,
            f"{folder} belongs to another user (uid {found.st_uid}; was mscli run with sudo?)",
            f"Change the owner: sudo chown -R {os.geteuid()} {folder}",
        )


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, mode 0600 from its first byte on. Raises FILE or DISK_FULL."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as handle:
            handle.write(text)
        fresh.replace(path)
    except OSError as fault:
        full = fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise MscliError(
            Code.DISK_FULL if full else Code.FILE,
            f"{path} cannot be written: {fault.strerror}",
            "Free disk space there, or set MSCLI_HOME to another folder."
            if full
            else "Check the permissions of its folder.",
        ) from fault
    finally:  # a Ctrl-C comes at any moment
        with contextlib.suppress(OSError):
            fresh.unlink()


def unreadable(found: Unreadable) -> MscliError:
    """The error for a record that cannot be read."""
    return MscliError(
        Code.RECORD_UNREADABLE,
        f"the record of {found.name!r} cannot be read: {found.reason} ({found.path})",
        f"It was not changed; its processes may still run. Stop them: mscli down {found.name} --force. Then "
        "move the file away.",
    )


def _wait_for_lock(descriptor: int, path: Path, patience_s: float) -> None:
    begun = since = asked = time.monotonic()
    holder: int | None = None
    while not try_lock(descriptor):
        now = time.monotonic()
        if now - asked > _ASK_HOLDER_EVERY_S:
            asked, found = now, _lock_holder(descriptor)
            holder, since = found, since if found == holder else now
        if now - since > patience_s or now - begun > LOCK_TIMEOUT_S:
            raise _locked(path, _lock_holder(descriptor), now - since)
        time.sleep(_TRY_EVERY_S)


def _locked(path: Path, holder: int | None, seconds: float) -> MscliError:
    return MscliError(
        Code.FILE,
        f"{f'PID {holder}' if holder else 'another process'} has held {path} for {seconds:.0f} s",
        f"To see which process it is: ps -fp {holder}. Try again when it has ended." if holder else "Try again.",
        {"holder_pid": holder},
    )


def _lock_holder(descriptor: int) -> int | None:
    """The process that holds the lock on a file, as the kernel tells; None where it cannot be seen from here."""
    found = os.fstat(descriptor)
    where = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    holders = (int(row[4]) for row in rows if row[1] == "FLOCK" and row[5] == where)
    return next((pid for pid in holders if pid > 0), None)


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file if nobody holds it; True if it is ours now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
