"""Locks on blobs: whoever fetches a blob holds its lock, so that two pulls of one repository share one download.

The locks are flock on the files that the Hugging Face libraries lock too. They vanish with the process that holds them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path

from mscli.weights.fault import unwritable


@contextmanager
def held(paths: Iterable[Path], wait: Callable[[Path], None]) -> Iterator[None]:
    """Holds the locks of all `paths`. While another process has one, calls `wait` with it, over and over: `wait` sleeps
    a moment, and raises when enough is enough. Locks are taken in one order everywhere, so nobody waits in a circle."""
    with ExitStack() as stack:
        for path in sorted(paths):
            while (lock := _try_lock(path)) is None:
                wait(path)
            stack.enter_context(lock)
        yield


def holder(path: Path) -> int | None:
    """The process that holds the lock on `path`, as the kernel tells; None when it does not (another container)."""
    try:
        status = path.stat()
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    rows = (line.split() for line in locks.splitlines())
    pids = [int(row[4]) for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5] == wanted]
    return next((pid for pid in pids if pid > 0), None)


def _try_lock(path: Path) -> FileIO | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = FileIO(path, "r+", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))
    except OSError as error:
        raise unwritable(path, error, 0) from error
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        return file  # file systems without flock: two pulls then write the same bytes to the same places
    if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
        file.close()  # its last holder removed the file between our open and our lock
        return _try_lock(path)
    return file
