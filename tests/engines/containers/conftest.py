"""Homes whose Docker is a stand-in for the fast tests, and a real one for those marked `engines`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import SUPPORT
from support.containers.container_home import IMAGE, StandinDocker, write_profile
from support.containers.container_images import base_prefix, make_image
from support.containers.real_docker import Dockerd, why_not
from support.run_mscli import Mscli, Ran
from support.tiny_models import TinyModels


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
def up(mscli: Mscli, container_env: dict[str, str], home: Path, tiny_model: TinyModels) -> Callable[..., Ran]:
    """Starts the tiny model: `mscli up tiny`, with what is added."""
    write_profile(home)
    weights = str(tiny_model("small31", formats=("mistral",)).folder)

    def start(*args: str, **more: object) -> Ran:
        return mscli("up", "tiny", "--weights", weights, *args, **more)

    return start


@contextmanager
def running(number: int) -> Iterator[Dockerd]:
    """A Docker engine with the image IMAGE of a stand-in for vLLM."""
    if reason := why_not():
        pytest.skip(reason)
    engine = Dockerd(number)
    try:
        engine.start()
        standin_image(engine)
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def dockerd() -> Iterator[Dockerd]:
    """The one that the tests of this session share."""
    with running(0) as engine:
        yield engine


@pytest.fixture
def engine_of_its_own() -> Iterator[Dockerd]:
    """One for a test that ends it."""
    with running(1) as engine:
        yield engine


def standin_image(engine: Dockerd) -> None:
    """Makes IMAGE: a Python with the stand-in for vLLM as its program `vllm`."""
    program = engine.folder / "program" / "vllm"
    program.parent.mkdir(exist_ok=True)
    source = (SUPPORT / "containers" / "standin_vllm.py").read_text()
    program.write_text(f"#!{base_prefix(Path(sys.executable))}/bin/python3\n{source}")
    program.chmod(0o755)
    links = {"/opt/bin/vllm": str(program)}
    make_image(("docker", "--host", engine.host), IMAGE, Path(sys.executable), program.parent, links=links)


@pytest.fixture
def real_up(mscli: Mscli, user_env: dict[str, str], home: Path, tiny_model: TinyModels) -> Callable[..., Ran]:
    """Starts the tiny model on the real engine given first: `mscli up tiny`, with what is added."""
    write_profile(home)
    weights = str(tiny_model("small31", formats=("mistral",)).folder)

    def start(engine: Dockerd, *args: str, **more: object) -> Ran:
        user_env["DOCKER_HOST"] = engine.host
        return mscli("up", "tiny", "--weights", weights, "--json", *args, **more)

    return start
