"""The rehearsal model on real llama.cpp servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.llamacpp.llama_servers import LLAMA, PACKAGE, Rehearsal, Server, installations, rehearsal

from mscli.engines.engine import Installation
from mscli.weights.progress import WeightFiles


@pytest.fixture(scope="session", params=installations())
def found(request: pytest.FixtureRequest) -> Installation:
    """The llama.cpp under test."""
    if request.param == "program":
        return LLAMA.locate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        patch.setenv("MSCLI_HOME", "/nonexistent")  # nor one that mscli has installed for this user
        return LLAMA.locate()


@pytest.fixture(scope="session")
def shipped() -> WeightFiles:
    """The rehearsal pair inside the package."""
    folder = PACKAGE / "rehearsal"
    return WeightFiles(str(folder / "rehearsal-q8_0.gguf"), str(folder / "mmproj-rehearsal-f16.gguf"), 0)


@pytest.fixture
def llama(found: Installation, tmp_path: Path) -> Rehearsal:
    """Starts servers for one test."""
    return rehearsal(found, tmp_path)


@pytest.fixture(scope="session")
def server(found: Installation, shipped: WeightFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One ready server with the rehearsal model, for tests that only ask it things."""
    with rehearsal(found, tmp_path_factory.mktemp("server")).start(shipped) as started:
        started.wait_for(200)
        yield started
