"""Weights on a server that fetches them itself: the one that runs, or one that runs only as long as the pull takes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, runtime_checkable

from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import Profile
from mscli.engines.engine import Command, Hosted, Installation
from mscli.errors import Code, MscliError
from mscli.instances.probe import probe
from mscli.instances.records import Records
from mscli.instances.running import running
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
