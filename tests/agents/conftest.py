"""Real agents and clients, as tests/run_agents has installed them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.agents.recorder import Recorder, recording
from support.run_mscli import Mscli

# Who is here, and where its programs are.
HERE = dict(
    zip(os.environ.get("MSCLI_AGENTS", "").split(","), os.environ.get("MSCLI_AGENT_PATH", "").split(":"), strict=True)
)


@pytest.fixture
def programs_of() -> Callable[[str], Path]:
    """The folder with the programs of an agent or client; the test is skipped without it."""

    def found(name: str) -> Path:
        if name not in HERE:
            pytest.skip("not installed by tests/run_agents")
        return Path(HERE[name])

    return found


@pytest.fixture
def served(mscli: Mscli, home: Path, request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """The rehearsal with room for an agent, behind a proxy that keeps what is said. The parameter: more for `up`."""
    up = mscli("up", "rehearsal", *getattr(request, "param", ("--ctx", "131072")), "--json")
    instance = up.data["instance"]
    with recording(instance["port"]) as recorder:
        path = home / "state" / "instances" / "rehearsal" / "record.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "port": recorder.port}))
        yield recorder
        path.write_text(json.dumps({**json.loads(path.read_text()), "port": instance["port"]}))
