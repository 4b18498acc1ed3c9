"""Images from a registry of this machine, fetched by a real Docker: bytes told, interrupted, gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.containers.container_home import write_profile
from support.containers.image_registry import Registry, layer
from support.containers.real_docker import Dockerd, wait_for

from mscli.engines.containers.client import Client, image_id
from mscli.engines.containers.image import pull
from mscli.errors import MscliError
from mscli.weights.progress import Note, Progress

pytestmark = pytest.mark.engines


class Heard:
    """A listener that keeps what it hears; `halfway` is called when half of the bytes are here."""

    def __init__(self, registry: Registry | None = None) -> None:
        self.seen: list[Progress] = []
        self._registry = registry

    def progress(self, progress: Progress) -> None:
        self.seen.append(progress)
        if self._registry and progress.done_bytes > 0.3 * self._registry.size:
            self._registry.held.set()

    def note(self, note: Note) -> None:
        pass


@pytest.fixture
def registry(dockerd: Dockerd) -> Iterator[Registry]:
    """A registry whose image no engine has seen before."""
    with Registry([layer("small", os.urandom(2_000_000)), layer("large", os.urandom(20_000_000))]) as made:
        yield made


@pytest.fixture
def client(dockerd: Dockerd) -> Client:
    return Client(("docker",), "docker", None, {"DOCKER_HOST": dockerd.host})


def test_a_pull_tells_its_bytes_and_never_goes_back(client: Client, registry: Registry) -> None:
    heard = Heard(registry)
    registry.held.clear()  # so that a half is seen
    pull(client, registry.image, heard, registry.size)
    assert image_id(client, registry.image)
    assert (heard.seen[-1].stage, heard.seen[0].stage) == ("done", "downloading")
    loading = [each for each in heard.seen if each.stage == "downloading"]
    assert [each.done_bytes for each in loading] == sorted(each.done_bytes for each in loading)
    assert any(0.3 * registry.size < each.done_bytes < 0.7 * registry.size for each in loading)
    assert abs(heard.seen[-1].total_bytes - registry.size) < 0.01 * registry.size


def test_an_image_that_the_registry_lacks_is_named(client: Client, registry: Registry) -> None:
    registry.manifest = b"{}"
    with pytest.raises(MscliError) as failed:
        pull(client, "127.0.0.1:9/tests/none:v1", Heard())
    assert failed.value.details["cause"] == "network_proxy"


def test_an_interrupted_pull_ends_its_client_and_keeps_whole_layers(
    dockerd: Dockerd, client: Client, registry: Registry, user_env: dict[str, str], home: Path
) -> None:
    write_profile(home, image=registry.image)
    registry.held.clear()
    child = subprocess.Popen(
        [sys.executable, "-m", "mscli", "up", "tiny", "--events"],
        env={**user_env, "DOCKER_HOST": dockerd.host}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        event = json.loads(line)
        if event.get("event") == "progress" and event["done_bytes"] > 0.3 * registry.size:
            break
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert child.returncode == 130
    pulling = f"pull\0{registry.image}".encode()
    wait_for(lambda: not _running(pulling), lambda: "docker pull goes on")
    assert image_id(client, registry.image) is None
    registry.held.set()
    pull(client, registry.image, Heard())
    assert image_id(client, registry.image)


def _running(words: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and words in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
