"""Every engine that can be tested here, with one ready instance for the tests that only ask it things."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.engines.engine_home import KEY, TWINS, Client, Home, Running, Twin, make_home
from support.engines.hostile_shell import HOSTILE_SHELL
from support.tiny_models import TinyModels

from mscli.engines.engine import Capabilities
from mscli.engines.table import engine


def marks(twin: Twin) -> list[pytest.MarkDecorator]:
    return [] if twin.engine == "llama.cpp" else [pytest.mark.engines]


@pytest.fixture(
    scope="session", params=[pytest.param(twin, id=name, marks=marks(twin)) for name, twin in TWINS.items()]
)
def twin(request: pytest.FixtureRequest) -> Twin:
    """The engine under test."""
    found: Twin = request.param
    if found.variable and found.place() is None:
        pytest.fail(f"no {found.engine} to test with: run tests/run_engines {found.engine}, which installs it")
    return found


@pytest.fixture(scope="session")
def capabilities(twin: Twin) -> Capabilities:
    """What the engine says it can do."""
    return engine(twin.engine).capabilities


@pytest.fixture(scope="session")
def alone(twin: Twin) -> Iterator[None]:
    """Held while a heavy engine is under test: two would not fit into a small machine's memory."""
    place = twin.place()
    if place is None:
        yield
        return
    with place.with_name(f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def weights(twin: Twin, tiny_model: TinyModels) -> Path | None:
    """The twin's files; None where they come with mscli."""
    return tiny_model("small31", formats=twin.weights).folder if twin.variable else None


@pytest.fixture(scope="session")
def running(
    alone: None, twin: Twin, capabilities: Capabilities, weights: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """One instance, with a key where the engine takes one, started from a shell that holds others' settings."""
    home = make_home(twin, tmp_path_factory.mktemp("home"), weights)
    key = KEY if capabilities.api_key else None
    try:
        up = home.up(env={**HOSTILE_SHELL, **({"MSCLI_API_KEY": key} if key else {})})
        assert up.code == 0, up.out + up.err
        told = home.mscli("env", "--json").data
        yield Running(home, up.data, Client(told["OPENAI_BASE_URL"], told["MSCLI_MODEL"], key))
    finally:
        home.mscli("down", "--all")


@pytest.fixture
def home(alone: None, twin: Twin, weights: Path | None, tmp_path: Path) -> Iterator[Home]:
    """A home for a start of one's own."""
    made = make_home(twin, tmp_path / "home", weights)
    made.folder.mkdir(exist_ok=True)
    yield made
    made.mscli("down", "--all")
