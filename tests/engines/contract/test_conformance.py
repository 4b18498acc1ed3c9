"""Clients that nobody here wrote, against every engine as `mscli up` starts it.

docs/reference/conformance.md is what they found; each engine's test compares its column.

Run by tests/run_conformance, which installs the clients. CONFORMANCE_WRITE=1 writes the column anew.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.conformance.page import CLIENTS, GATEWAY, NAMES, Found, read, write
from support.containers.container_home import write_profile as write_container_profile
from support.containers.container_images import make_vllm_image
from support.containers.real_docker import Dockerd, why_not
from support.engines.engine_home import KEY, TWINS, Home, make_home
from support.ollama.standins import STANDIN
from support.ollama.tiny import give, program, write_profile
from support.run_mscli import environment
from support.tiny_models import TinyModels

from mscli.engines.table import engine

DOCKER = "-docker"
TESTS = Path(__file__).parents[2]
PYTHON = os.environ.get("MSCLI_CLIENTS", "")
pytestmark = pytest.mark.conformance


@contextmanager
def ollama_home(folder: Path) -> Iterator[Home]:
    """A user whose own store of Ollama has the rehearsal's model: of a real one on PATH, else of the stand-in."""
    folder.mkdir()
    path = folder / "bin" / "ollama"
    path.parent.mkdir()
    (folder / "scene.json").write_text('{"registry": {}}')
    if real := program():
        path.symlink_to(real)
    else:
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{STANDIN}" "$@"\n')
        path.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    env = environment(folder, folder / "home", OLLAMA_STANDIN=str(folder / "scene.json"))
    env["PATH"] = f"{path.parent}:{env['PATH']}"
    write_profile(folder / "home" / "config" / "profiles")
    own = subprocess.Popen([path, "serve"], env={**env, "OLLAMA_HOST": host}, stdout=-3, stderr=-3)
    try:
        give(f"http://{host}")
    finally:
        own.terminate()
        own.wait(30)
    yield Home(folder, {**env, "OLLAMA_HOST": host}, ("tiny", "--yes"))


@contextmanager
def docker_home(folder: Path, weights: Path, vllm: Path) -> Iterator[Home]:
    """A user of a real Docker engine that has an image with the vLLM in `vllm`."""
    if reason := why_not():
        pytest.skip(reason)
    docker = Dockerd(2)
    try:
        docker.start()
        write_container_profile(folder / "home", make_vllm_image(("docker", "--host", docker.host), vllm))
        env = environment(folder, folder / "home", DOCKER_HOST=docker.host)
        yield Home(folder, env, ("tiny", "--weights", str(weights)))
    finally:
        docker.close()


@contextmanager
def home_of(name: str, folder: Path, tiny_model: TinyModels) -> Iterator[Home]:
    """A home in which the engine can be started; where it is heavy, nobody else starts one meanwhile."""
    if name == "ollama":
        with ollama_home(folder) as home:
            yield home
        return
    twin = TWINS[name.removesuffix(DOCKER)]
    with ExitStack() as held:
        if place := twin.place():
            lock = held.enter_context(place.with_name(f"{place.name}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        elif twin.variable:
            pytest.skip(f"no {twin.engine} to test with: tests/run_engines {twin.engine} installs it")
        weights = tiny_model("small31", formats=twin.weights).folder if twin.variable else None
        folder.mkdir(exist_ok=True)
        if name.endswith(DOCKER) and place and weights:
            yield held.enter_context(docker_home(folder, weights, place))
        else:
            yield make_home(twin, folder, weights)


def asked(client: str, url: str, model: str, key: str) -> Found:
    """What became of each ability of one client."""
    env = {**os.environ, "PYTHONPATH": str(TESTS), "CONFORMANCE_KEY": key, "NO_PROXY": "127.0.0.1"}
    argv = [PYTHON, str(TESTS / "support" / "conformance" / "clients.py"), client, url, model]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: Found = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):  # litellm prints advice beside an error
            found |= json.loads(line)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_client_finds_what_the_page_says(name: str, tmp_path: Path, tiny_model: TinyModels) -> None:
    if not shutil.which(PYTHON):
        pytest.skip("no clients to test with: tests/run_conformance installs them")
    if not read(name) and not os.environ.get("CONFORMANCE_WRITE"):
        pytest.skip(f"the page has no column of {name} yet: CONFORMANCE_WRITE=1 writes it")
    plain = name.removesuffix(GATEWAY)
    front = () if name == plain else ("--gateway",)
    with home_of(plain, tmp_path / "user", tiny_model) as home:
        key = KEY if engine(plain).capabilities.api_key else ""
        try:
            up = home.up("--ctx", "4096", *front, env={"MSCLI_API_KEY": key} if key else {})
            assert up.code == 0, up.out + up.err
            told = home.mscli("env", "--json").data
            found = {
                client: asked(client, told["OPENAI_BASE_URL"], told["MSCLI_MODEL"], key)
                for client in CLIENTS
                if client != "ollama" or name == "ollama"
            }
        finally:
            home.mscli("down", "--all")
    if os.environ.get("CONFORMANCE_WRITE"):
        write(name, found)
    for client, rows in found.items():
        for ability, said in rows.items():
            print(f"{name:13} {client:17} {ability:36} {said}")
    assert read(name) == {
        client: {ability: said.partition(":")[0] for ability, said in rows.items()} for client, rows in found.items()
    }
