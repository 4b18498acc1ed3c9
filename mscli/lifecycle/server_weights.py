"""Weights on servers that hold many models and fetch them by themselves: which are there, fetched, and removed.

A pull uses a server that runs, or one that runs only as long as the pull takes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, runtime_checkable

from mscli.catalog.load import Catalog
from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import Profile
from mscli.engines.engine import Command, Hosted, Installation
from mscli.engines.table import STARTABLE, engine
from mscli.errors import Code, MscliError
from mscli.instances.records import Records, running
from mscli.instances.state import probe
from mscli.lifecycle.guard import END
from mscli.weights.files import WeightFiles
from mscli.weights.progress import Listener, Note

START_TIMEOUT_S = 60.0
_HOST = "127.0.0.1"


@runtime_checkable
class Fetching(Hosted, Protocol):
    """A server that can be had for a pull alone."""

    def bare(self, found: Installation, address: tuple[str, int]) -> Command:
        """The server without any plan."""

    def fetch(self, address: tuple[str, int], variant: Variant, listener: Listener) -> WeightFiles:
        """Have the server at `address` pull the variant, unless it has it. Blocks for the pull."""


def fetch(
    engine: Fetching, profile: Profile, model: Model, variant: Variant, records: Records, listener: Listener
) -> WeightFiles:
    """The variant on a server: one of our own that is ready, one that ran before, else one for this pull.

    Blocks for the pull. Raises ENGINE_MISSING, START_FAILED, and what the pull raises.
    """
    if address := _own(engine, records):
        return engine.fetch(address, variant, listener)
    if adopted := engine.adopt():
        for warning in engine.check(adopted, profile, model):
            listener.note(Note("server", warning))
        return engine.fetch((adopted.host, adopted.port), variant, listener)
    with _started(engine) as address:
        return engine.fetch(address, variant, listener)


def _own(engine: Fetching, records: Records) -> tuple[str, int] | None:
    mine = (record for record in records.all()[0] if record.plan.engine == engine.name and running(record))
    answering = (record for record in mine if probe(record.host, record.port, engine.health_path).status == 200)
    return next(((record.host, record.port) for record in answering), None)


@contextmanager
def _started(engine: Fetching) -> Iterator[tuple[str, int]]:
    """A server that runs until the end of the block. Waits at most START_TIMEOUT_S until it answers."""
    found = engine.locate()
    port = _free_port()
    what = engine.bare(found, (_HOST, port))
    with TemporaryDirectory(prefix="mscli-pull-") as folder:
        log = Path(folder) / "log"
        server = _spawn(what, log)
        try:
            _wait(engine, (_HOST, port), server, log)
            yield _HOST, port
        finally:
            _end(server)


def _free_port() -> int:
    """One of the kernel's choice: nobody else starts servers among those, and clients need not know it."""
    with socket.create_server((_HOST, 0)) as free:
        return int(free.getsockname()[1])


def _spawn(what: Command, log: Path) -> subprocess.Popen[bytes]:
    """Its own session: Ctrl-C is for the pull, which ends first. Should mscli be killed, the server ends with it."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "mscli.lifecycle.guard", *what.argv], stdin=subprocess.PIPE, stdout=output,
            stderr=output, env={**os.environ, **what.env}, start_new_session=True,
        )  # fmt: skip


def _wait(engine: Fetching, address: tuple[str, int], server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        if probe(*address, engine.health_path).status == 200 and server.poll() is None:
            return
        time.sleep(0.02)
    cause = engine.diagnose(log.read_text(errors="replace"), server.returncode)
    raise MscliError(
        Code.START_FAILED,
        f"{engine.name} did not start to pull: {cause.summary}",
        cause.remedy,
        {"cause": cause.code, "evidence": list(cause.evidence)},
    )


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server. Waits as long as its guard does."""
    server.communicate(END)


@dataclass(frozen=True)
class OnServer:
    """One model on a server. `derived`: made by mscli for an instance; its bytes are shared with the model it is from.

    `instance`: that instance, where it is still remembered. `profiles`: those that run this model.
    """

    engine: str
    host: str
    port: int
    name: str
    size_bytes: int
    derived: bool
    instance: str | None
    profiles: tuple[str, ...]


def on_servers(catalog: Catalog, records: Records) -> tuple[OnServer, ...]:
    """The models of this catalogue, and those derived by mscli, on every server that answers. Others are not told."""
    found = []
    for name in STARTABLE:
        known = engine(name)
        if isinstance(known, Hosted):
            for address in _addresses(known, records):
                found += list(_models(known, address, catalog, records))
    return tuple(sorted(found, key=lambda model: -model.size_bytes))


def unneeded(models: Collection[OnServer], keep_profiles: Collection[str] | None) -> tuple[OnServer, ...]:
    """Derived models of instances that are gone, and (with `keep_profiles`) library models that none of these needs."""
    return tuple(
        model
        for model in models
        if (model.derived and model.instance is None)
        or (not model.derived and keep_profiles is not None and not set(model.profiles) & set(keep_profiles))
    )


def remove(model: OnServer) -> None:
    """Remove it from its server's disk. Raises MscliError when the server refuses."""
    known = engine(model.engine)
    assert isinstance(known, Hosted)
    known.remove((model.host, model.port), model.name)


def _addresses(known: Hosted, records: Records) -> Iterator[tuple[str, int]]:
    seen = set()
    own = [record for record in records.all()[0] if record.plan.engine == known.name and running(record)]
    candidates = [(record.host, record.port) for record in own]
    if adopted := known.adopt():
        candidates.append((adopted.host, adopted.port))
    for address in candidates:
        if address not in seen and probe(*address, known.health_path).status == 200:
            seen.add(address)
            yield address


def _models(known: Hosted, address: tuple[str, int], catalog: Catalog, records: Records) -> Iterator[OnServer]:
    users: dict[str, list[str]] = {}
    for profile in catalog.profiles.values():
        source = catalog.model_of(profile)[1].source
        if profile.engine == known.name:
            users.setdefault(_full(source.repository), []).append(profile.name)
    aliases = {_full(record.alias): record.name for record in records.all()[0]}
    prefix = known.alias_of("")
    for held in known.held(address):
        name, derived = _full(held.name), held.name.startswith(prefix)
        if derived or name in users:
            profiles = tuple(sorted(users.get(name, ())))
            yield OnServer(known.name, *address, held.name, held.size_bytes, derived, aliases.get(name), profiles)


def _full(name: str) -> str:
    """A name without a tag means its latest one."""
    return name.lower() if ":" in name else f"{name.lower()}:latest"
