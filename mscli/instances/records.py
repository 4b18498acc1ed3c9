"""What is recorded of each named instance: one typed JSON record, written whole; and which of them run.

A record that is damaged, or was written by a newer mscli, is reported by name and never deleted or overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mscli.catalog.sampling import Sampling
from mscli.engines.environment import Contained
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.instances import container as containers
from mscli.instances.json_values import Mismatch, from_json, to_json
from mscli.instances.process import Identity, alive, members
from mscli.instances.state import Instance, base_url, look
from mscli.instances.store import Store, Unreadable, parsed, unreadable, write_private
from mscli.planning.plan import Claim, Overrides, Plan

GGUF = "gguf"  # of `Request.template`: the one inside the file


@frozen
class Request:
    """What was asked for: enough to tell the same `up` from another, and to do it again.

    `profile` None: the best one was to be chosen. `file`: a profile file given by path. `port` None: any free one.
    `weights`: a folder to take them from, in place of the hub cache. `adopt`: a server that runs is to be used.
    `supervise`: it is to be started again when it ends by itself. `idle_stop_s`: without a request for so long, the
    model leaves the memory until the next one. `gateway`: with or without one in front of the engine; None: as the
    engine needs it. `template`: whose chat template llama.cpp takes; None: mscli's.
    """

    profile: str | None
    file: str | None
    host: str | None
    port: int | None
    overrides: Overrides
    require_gpu: bool = True
    weights: str | None = None
    adopt: bool = False
    supervise: bool = False
    idle_stop_s: int | None = None
    gateway: bool | None = None
    template: str | None = None


@frozen
class End:
    """One end of a supervised engine. `at`: seconds since the epoch. `how`: exit, or hung; `status`: exit status, or
    minus a signal; `served`: it had been ready. `cause`: a code of the closed list, `summary` in words; `lines`: its
    last ones. `restart_after_s` None: it was not started again."""

    at: float
    how: str
    status: int
    served: bool
    cause: str
    summary: str
    lines: tuple[str, ...]
    restart_after_s: float | None


@frozen
class Taken:
    """What an instance took when it became ready. `context`: tokens that a request may have, as the engine says;
    `gpu_bytes`: by GPU index, as NVML says; `gpu_share`: of the model in GPU memory, 0 to 1. None: not told."""

    context: int | None
    gpu_bytes: Mapping[str, int]
    gpu_share: float | None


@frozen
class Record:
    """One instance. `since`: seconds since the epoch. `argv` holds no secret. `stopped_at` is set by `down`.

    `capabilities`: what the model can do on this engine. `alias`: the model name that clients send; `stand_in` marks
    scripted test models. `identity` None: the server is not ours (`owner` says whose), and is never stopped; without
    an `owner` it is about to be spawned. `weights`: the files or folders it serves from. `contained`: the container it
    runs in; `identity` is then its client's. `starter`: the mscli that started it, which waits until it is ready;
    `log_start`: where this start's part of the log begins, in bytes. `restarts`: how often its companion has started
    it again, after `last_end`; `identity` is then the companion's. `taken`: None until it was ready. `gateway`: how one
    at `host` and `port` speaks to the engine (None: the engine listens there), and `engine_port` the engine's own then.
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
    capabilities: tuple[str, ...]
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
    weights: tuple[Path, ...]
    since: float
    stopped_at: float | None = None
    contained: Contained | None = None
    starter: Identity | None = None
    log_start: int = 0
    restarts: int = 0
    last_end: End | None = None
    taken: Taken | None = None
    gateway: str | None = None
    engine_port: int | None = None

    @property
    def engine_address(self) -> tuple[str, int]:
        """Where the engine itself listens: for what the gateway does not pass."""
        return ("127.0.0.1", self.engine_port) if self.engine_port else (self.host, self.port)

    @property
    def base_url(self) -> str:
        """The OpenAI-compatible base URL, as a client on this machine reaches it."""
        return base_url(self.host, self.port)


class Records(Store):
    """The typed records of one user."""

    def save(self, record: Record) -> None:
        """Write the record: whole or not at all, mode 0600. Raises FILE or DISK_FULL."""
        path, text = self.run_dir(record.name) / "record.json", json.dumps(to_json(record))
        write_private(path, text)
        _latest[path] = text.encode(), record

    def load(self, name: str) -> Record | Unreadable | None:
        """The record of `name`, None if there is none, or why it cannot be read."""
        text = self.text(name)
        if not isinstance(text, bytes):
            return text
        path = self.run_dir(name) / "record.json"
        if path not in _latest or _latest[path][0] != text:
            _latest[path] = text, _typed(name, path, text)
        return _latest[path][1]

    def get(self, name: str) -> Record | None:
        """The record of `name` or None. Raises RECORD_UNREADABLE where there is one that cannot be read."""
        found = self.load(name)
        if isinstance(found, Unreadable):
            raise unreadable(found)
        return found

    @contextmanager
    def still(self, record: Record) -> Iterator[Record | None]:
        """Hold the lock, with the record read again: None where this start's is gone, or another start has the name.

        Whatever changes the folder of an instance does it inside. Raises FILE where the lock cannot be had.
        """
        with self.lock():
            now = self.load(record.name)
            yield now if isinstance(now, Record) and now.mark == record.mark else None

    def all(self) -> tuple[tuple[Record, ...], tuple[Unreadable, ...]]:
        """Every record, by name, and those that cannot be read."""
        loaded = [self.load(name) for name in self.names()]
        good = tuple(record for record in loaded if isinstance(record, Record))
        return good, tuple(record for record in loaded if isinstance(record, Unreadable))


# Each record's text as this process saw or wrote it last, and what it says: one start looks at the records ten times.
_latest: dict[Path, tuple[bytes, Record | Unreadable]] = {}


def _typed(name: str, path: Path, text: bytes) -> Record | Unreadable:
    data = parsed(name, path, text)
    if isinstance(data, Unreadable):
        return data
    try:
        return from_json(Record, data)
    except Mismatch as fault:
        return Unreadable(name, path, str(fault))


def api_key(record: Record) -> str | None:
    """The key that clients of this instance send, the first of several; None where none is asked for. Raises as
    `api_keys` does."""
    keys = api_keys(record)
    return keys.split()[0] if keys else None


def api_keys(record: Record) -> str | None:
    """All keys that this instance takes, by lines; None where it asks for none.

    Raises FILE when there should be one and it cannot be read.
    """
    if record.api_key_file is None:
        return None
    try:
        return record.api_key_file.read_text().strip()
    except OSError as fault:
        raise MscliError(
            Code.FILE,
            f"the API key of {record.name} cannot be read: {fault}",
            "Start it again with a new key: mscli up --replace",
        ) from fault


def seen(record: Record, records: Records) -> Instance:
    """The instance of `record` now. Waits at most about 2 seconds, for an endpoint that does not answer."""
    found = look(to_json(record), records)
    if isinstance(found, Unreadable):
        raise unreadable(found)
    return found


def group(record: Record) -> tuple[int, ...]:
    """The living processes of an instance, its container's included; none where the server is not ours."""
    found = members(record.identity, record.mark) if record.owner is None else ()
    return tuple(sorted({*found, *containers.pids(record.contained)})) if record.contained else found


def leads(record: Record) -> bool:
    """True while the process that leads the instance lives, or is about to be spawned by an mscli that lives."""
    leader = record.identity or record.starter
    return record.owner is None and leader is not None and alive(leader)


def running(record: Record) -> bool:
    """True while any process of the instance lives, or its container is there, or it has a model on somebody else's
    server: it may hold memory. Waits for the container's engine where its client is gone."""
    if record.stopped_at is not None or record.owner is not None:
        return record.stopped_at is None
    if leads(record) or group(record):
        return True
    return record.contained is not None and containers.left(record.contained)


def claims(records: tuple[Record, ...], replaced: str | None) -> tuple[Claim, ...]:
    """What our own instances hold or are about to take on each GPU; what the one named `replaced` holds comes back."""
    return tuple(
        Claim(
            instance=record.name,
            gpu_uuid=memory.uuid,
            planned_bytes=memory.needed_bytes,
            pids=group(record),
            replaced=record.name == replaced,
        )
        for record in records
        if running(record)
        for memory in record.plan.memory
    )


def must_run(record: Record) -> None:
    """Raise NOT_RUNNING for an instance that has died or was stopped: its port may be somebody else's by now."""
    if record.stopped_at is None and (record.owner is not None or leads(record)):
        return
    raise MscliError(
        Code.NOT_RUNNING,
        f"{record.name} is no longer running",
        f"Its last lines: mscli logs {record.name} -n 30. Start it again: mscli restart {record.name}",
    )


def the_one(records: Records, name: str | None, command: str, dead: bool = False) -> Record:
    """The record meant by an optional name: the named one, or the only one that runs; with `dead`, where none runs,
    the only one that was not stopped: it has crashed. `command`: what is typed before a name to give it.

    Raises NOT_RUNNING when there is none, USAGE when a name is needed to tell several apart.
    """
    if name is not None:
        record = records.get(name)
        if record is None:
            raise MscliError(Code.NOT_RUNNING, f"there is no instance {name!r}", _known(records))
        return record
    known = records.all()[0]
    meant = [record for record in known if running(record)]
    if not meant and dead:
        meant = [record for record in known if record.stopped_at is None]
    if not meant:
        raise MscliError(Code.NOT_RUNNING, "nothing is running", _of_stopped(known, command if dead else None))
    if len(meant) > 1:
        names = ", ".join(record.name for record in meant)
        state = "are running" if running(meant[0]) else "have crashed"
        hint = f"Name one: {command} {meant[0].name}"
        raise MscliError(Code.USAGE, f"several instances {state}: {names}", hint)
    return meant[0]


def _of_stopped(known: Sequence[Record], command: str | None) -> str:
    """What to type where nothing runs. `command`: takes the name of a stopped instance, too."""
    if not known:
        return "To start the best model for this machine: mscli up"
    again = f"Name one: {command}" if command else "To start it again: mscli restart"
    return f"Stopped: {', '.join(record.name for record in known)}. {again} {known[0].name}"


def _known(records: Records) -> str:
    names = ", ".join(record.name for record in records.all()[0])
    return f"Known instances: {names}" if names else "Start one: mscli up, or mscli up rehearsal"
