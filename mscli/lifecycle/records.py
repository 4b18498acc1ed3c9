"""What is remembered of each named instance: one JSON record in one private folder, written atomically.

A record that is damaged, or was written by a newer mscli, is reported by name and never deleted or overwritten.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mscli.catalog.model import Sampling
from mscli.errors import Code, MscliError
from mscli.lifecycle.process import Identity
from mscli.lifecycle.values import Mismatch, from_json, to_json
from mscli.paths import Places
from mscli.planning.plan import Plan, Wish

SCHEMA = "mscli-record/1"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}\Z")


@dataclass(frozen=True)
class Request:
    """What was asked for: enough to tell the same `up` from another, and to do it again.

    `profile` None: the best one was to be chosen. `file`: a profile file given by path. `port` None: any free one.
    """

    profile: str | None
    file: str | None
    host: str | None
    port: int | None
    wish: Wish
    require_gpu: bool = True


@dataclass(frozen=True)
class Record:
    """One instance. `since`: seconds since the epoch. `argv` holds no secret. `stopped_at` is set by `down`.

    `alias` is the model name that clients send; `stand_in` marks scripted test models. `identity` None: the server is
    not ours (`owner` says whose), and is never stopped.
    """

    schema: str
    name: str
    request: Request
    plan: Plan
    title: str
    stand_in: bool
    alias: str
    sampling: Sampling
    system_prompt: str | None
    reasoning: str
    identity: Identity | None
    owner: str | None
    mark: str
    engine_version: str | None
    argv: tuple[str, ...]
    env: Mapping[str, str]
    host: str
    port: int
    health_path: str
    api_key_file: Path | None
    log: Path
    since: float
    stopped_at: float | None = None

    @property
    def base_url(self) -> str:
        """The OpenAI-compatible base URL, as a client on this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host and '[' not in host else host}:{self.port}/v1"


@dataclass(frozen=True)
class Unreadable:
    """A record that this mscli cannot read, and why."""

    name: str
    path: Path
    reason: str


def check_name(name: str) -> str:
    """`name` if it can name an instance. Raises USAGE otherwise."""
    if not _NAME.match(name):
        raise MscliError(
            Code.USAGE,
            f"{name!r} cannot name an instance: letters, digits, '.', '_' and '-' only, at most 63",
            "Give another name with --name.",
        )
    return name


class Records:
    """The records of one user, below `places.instances`."""

    def __init__(self, places: Places) -> None:
        self.folder = places.instances

    def run_dir(self, name: str) -> Path:
        """The private folder of an instance: record, log, key, temporary files. Not created here."""
        return self.folder / name

    def prepare(self, name: str) -> Path:
        """Make the instance's folder, readable by its owner alone, with a `tmp` folder for the engine."""
        run_dir = self.run_dir(name)
        (run_dir / "tmp").mkdir(parents=True, exist_ok=True)
        run_dir.chmod(0o700)
        return run_dir

    def save(self, record: Record) -> None:
        """Write the record: whole or not at all, mode 0600."""
        path = self.run_dir(record.name) / "record.json"
        write_private(path, json.dumps(to_json(record), indent=1))

    def load(self, name: str) -> Record | Unreadable | None:
        """The record of `name`, None if there is none, or why it cannot be read."""
        path = self.run_dir(name) / "record.json"
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as fault:
            return Unreadable(name, path, fault.strerror or str(fault))
        except ValueError as fault:
            return Unreadable(name, path, f"not JSON: {fault}")
        return _checked(name, path, data)

    def get(self, name: str) -> Record | None:
        """The record of `name` or None. Raises RECORD_UNREADABLE where there is one that cannot be read."""
        found = self.load(name)
        if isinstance(found, Unreadable):
            raise unreadable(found)
        return found

    def all(self) -> tuple[tuple[Record, ...], tuple[Unreadable, ...]]:
        """Every record, by name, and those that cannot be read."""
        try:
            names = sorted(entry.name for entry in self.folder.iterdir() if (entry / "record.json").exists())
        except FileNotFoundError:
            return (), ()
        loaded = [self.load(name) for name in names]
        good = tuple(record for record in loaded if isinstance(record, Record))
        return good, tuple(record for record in loaded if isinstance(record, Unreadable))

    def purge(self, name: str) -> None:
        """Remove everything that is kept of an instance, its log included."""
        shutil.rmtree(self.run_dir(name), ignore_errors=True)

    def tidy(self, name: str) -> None:
        """Remove a stopped instance's temporary files. Record, log and key stay: `restart` needs them."""
        run_dir = self.run_dir(name)
        shutil.rmtree(run_dir / "tmp", ignore_errors=True)
        (run_dir / "ready").unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Remove the record of a start that failed. Its log stays, so that `mscli logs` can still show it."""
        (self.run_dir(name) / "record.json").unlink(missing_ok=True)
        self.tidy(name)

    def mark_ready(self, name: str) -> None:
        """Remember that the instance has answered once: from now on silence means unresponsive, not starting."""
        with contextlib.suppress(OSError):
            (self.run_dir(name) / "ready").touch()

    def was_ready(self, name: str) -> bool:
        """True once the instance has answered its health check."""
        return (self.run_dir(name) / "ready").exists()

    @contextlib.contextmanager
    def lock(self, timeout_s: float = 10.0) -> Iterator[None]:
        """Hold the one lock of this user's records, for milliseconds: between the last look and the spawn.

        Waits at most `timeout_s`. Raises FAILED-class error FILE when another mscli does not let go.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as handle:
            deadline = time.monotonic() + timeout_s
            while not _try_lock(handle.fileno()):
                if time.monotonic() > deadline:
                    raise MscliError(
                        Code.FILE,
                        f"another mscli has held {handle.name} for {timeout_s:.0f} s",
                        "Try again, or look for it with: pgrep -af mscli",
                    )
                time.sleep(0.02)
            yield


def api_key(record: Record) -> str | None:
    """The key that clients of this instance must send; None where none is asked for.

    Raises FILE when there should be one and it cannot be read.
    """
    if record.api_key_file is None:
        return None
    try:
        return record.api_key_file.read_text().strip()
    except OSError as fault:
        raise MscliError(
            Code.FILE, f"the API key of {record.name} cannot be read: {fault}", f"mscli restart {record.name}"
        ) from fault


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, mode 0600 from its first byte on."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(path)


def unreadable(found: Unreadable) -> MscliError:
    """The error for a record that cannot be read."""
    return MscliError(
        Code.RECORD_UNREADABLE,
        f"the record of {found.name!r} cannot be read: {found.reason} ({found.path})",
        "It was left as it is. If it is of no more use, move that file away; what it started may still run.",
    )


def _checked(name: str, path: Path, data: object) -> Record | Unreadable:
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        return Unreadable(name, path, f"its schema is {schema!r}, this mscli reads {SCHEMA!r}")
    try:
        return from_json(Record, data)
    except Mismatch as fault:
        return Unreadable(name, path, str(fault))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
