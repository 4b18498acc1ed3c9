"""A start whose weights are still on their way: who fetches, how far it is, and its end where somebody stops it.

Noted in files in the instance's folder, since such a start has no record yet. Small: `mscli status` loads it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from mscli.errors import Code, MscliError
from mscli.frozen import asdict, frozen, replace
from mscli.instances.process import Identity, alive, identify, wait_death
from mscli.instances.store import Store, private_folder, write_private

_NOTES = "fetching-*.json"
_NOTED_EVERY_S = 1.0
# The mscli that fetches looks for its note with every look at the pull; one that does not get there is sent a signal.
_HEED_S = 3.0
# SIGINT is ignored by what a shell has started with `&`.
_SIGNALS = ((signal.SIGINT, 3.0), (signal.SIGTERM, 10.0))


@frozen
class Fetching:
    """A start that fetches, as it was a second ago. `by`: the mscli that does; `total_bytes` 0: not known yet."""

    name: str
    profile: str
    engine: str
    by: Identity
    done_bytes: int = 0
    total_bytes: int = 0

    @property
    def words(self) -> str:
        """What is being done, for people."""
        share = f" {100 * self.done_bytes // self.total_bytes}%" if self.total_bytes else ""
        return f"fetching weights{share}"


class FetchNote:
    """The note of one fetch, made with the first `write`; gone after the block. To be used by the one that fetches."""

    def __init__(self, store: Store, name: str, profile: str, engine: str) -> None:
        by = identify(os.getpid())
        assert by is not None
        self._what, self._folder = Fetching(name, profile, engine, by), store.run_dir(name)
        self._path = self._folder / _NOTES.replace("*", str(by.pid))
        self._written_s: float | None = None

    def __enter__(self) -> FetchNote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Nothing more is fetched."""
        self._written_s = None
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._folder.rmdir()  # where nothing else is kept of the instance

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped this start."""
        return self._written_s is not None and not self._path.exists()

    def write(self, done_bytes: int, total_bytes: int) -> bool:
        """Note how far it is, at most once a second. False: somebody has stopped this start. Raises FILE.

        A full disk is left to the download to tell: it knows how much it lacks, and where.
        """
        if self.stopped:
            return False
        if self._written_s is None:
            private_folder(self._folder)
        if self._written_s is None or time.monotonic() - self._written_s >= _NOTED_EVERY_S:
            now = replace(self._what, done_bytes=done_bytes, total_bytes=total_bytes)
            try:
                write_private(self._path, json.dumps(asdict(now)))
            except MscliError as fault:
                if fault.code is not Code.DISK_FULL:
                    raise
            else:
                self._written_s = time.monotonic()
        return True


def fetching(store: Store, name: str) -> tuple[Fetching, ...]:
    """Who fetches for the instance `name` now; what an mscli that died had noted is passed over."""
    found = (_read(path) for path in store.run_dir(name).glob(_NOTES))
    return tuple(each for each in found if each and alive(each.by))


def all_fetching(store: Store) -> tuple[Fetching, ...]:
    """Every fetch that goes on now, by name."""
    return tuple(each for folder in store.folders() for each in fetching(store, folder.name))


def _read(path: Path) -> Fetching | None:
    try:
        told = json.loads(path.read_bytes())
        return Fetching(**{**told, "by": Identity(**told["by"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def stop_fetching(found: Fetching, store: Store, listener: Callable[[str], None]) -> str | None:
    """End the `mscli up` that fetches: the signal that it took, None if it ended by itself once its note was gone.

    What has come is kept. Waits at most 16 s.
    """
    (store.run_dir(found.name) / _NOTES.replace("*", str(found.by.pid))).unlink(missing_ok=True)
    listener(f"stopping the mscli up that fetches the weights of {found.name} (PID {found.by.pid})")
    wait_death(found.by.pid, _HEED_S)
    return stop_mscli(found.by)


def stop_mscli(who: Identity) -> str | None:
    """End another mscli as Ctrl-C does: the last signal that it took, None if it does not live. Waits at most 13 s."""
    last = None
    for number, patience_s in _SIGNALS:
        if alive(who) and who.pid != os.getpid():
            last = number.name
            with contextlib.suppress(ProcessLookupError):
                os.kill(who.pid, number)
            wait_death(who.pid, patience_s)
    return last
