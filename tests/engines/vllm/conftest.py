"""A real vLLM on the CPU, one at a time, in homes of their own."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.engines.installed_engines import CACHE
from support.run_mscli import environment
from support.vllm.vllm_home import Home, Homes


@pytest.fixture(scope="session")
def vllm_place() -> Path:
    """The environment of the vLLM under test: MSCLI_VLLM, else what tests/run_engines installed last."""
    named = os.environ.get("MSCLI_VLLM")
    installed = sorted(CACHE.glob("vllm-*/bin/vllm"))
    if not named and not installed:
        pytest.fail("no vLLM to test with: run tests/run_engines vllm, which installs it")
    return Path(named) if named else installed[-1].parent.parent


@pytest.fixture(scope="session")
def one_at_a_time(vllm_place: Path) -> Iterator[None]:
    """Held while vLLMs are tested: two would not fit into a small machine's memory, and be too slow for their tests."""
    with (vllm_place.parent / f"{vllm_place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def make_home(vllm_place: Path, tmp_path_factory: pytest.TempPathFactory) -> Homes:
    """Makes the home of a user whose vLLM is the one under test."""
    # what vLLM learns of a model's classes takes 10 s
    shared = os.environ.get("VLLM_CACHE_ROOT") or tmp_path_factory.getbasetemp() / "vllm-cache"

    def made(folder: Path) -> Home:
        own = environment(folder, folder, MSCLI_VLLM=str(vllm_place), VLLM_CACHE_ROOT=str(shared))
        return Home(folder, own)

    return made


@pytest.fixture
def home(make_home: Homes, one_at_a_time: None, tmp_path: Path) -> Iterator[Home]:
    """A home for one test; whatever runs in it is stopped at the end."""
    made = make_home(tmp_path / "home")
    yield made
    if (made.folder / "state" / "instances").exists():
        made.mscli("down", "--all")
