"""Homes whose Docker is a stand-in for the fast tests, and a real one for those marked `engines`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from home import StandinDocker, write_profile
from run_mscli import Mscli, Ran
from tiny_models import TinyModels


@pytest.fixture
def docker(tmp_path: Path) -> StandinDocker:
    """A docker on PATH whose daemon answers and has no image."""
    return StandinDocker(tmp_path / "docker", tmp_path / "bin")


@pytest.fixture
def container_env(user_env: dict[str, str], docker: StandinDocker) -> dict[str, str]:
    """The environment of a user of that docker."""
    user_env.update(docker.env)
    return user_env


@pytest.fixture
def up(
    mscli: Mscli, container_env: dict[str, str], home: Path, tiny_model: TinyModels
) -> Callable[..., Ran]:
    """Starts the tiny model: `mscli up tiny`, with what is added."""
    write_profile(home)
    weights = str(tiny_model("small31", formats=("mistral",)).folder)

    def start(*args: str, **more: object) -> Ran:
        return mscli("up", "tiny", "--weights", weights, *args, **more)

    return start
