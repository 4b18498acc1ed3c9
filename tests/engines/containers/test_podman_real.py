"""A real Podman in place of Docker: the same job, and the same container left behind and ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import SUPPORT
from support.containers.container_home import IMAGE, KEY, write_profile
from support.containers.container_images import base_prefix, make_image
from support.containers.image_registry import Registry, layer
from support.run_mscli import Mscli
from support.tiny_models import TinyModels

from mscli.engines.containers.client import Client, image_id
from mscli.engines.containers.image import compressed_bytes, pull
from mscli.engines.containers.run import probe_gpus
from mscli.instances import process
from mscli.weights.progress import Note, Progress

pytestmark = pytest.mark.engines

STORAGE = """\
[storage]
driver = "vfs"
graphroot = "{folder}/root"
runroot = "{folder}/run"
"""
# crun refuses some kernels' cgroups and the limits of containers within containers; runc does not
CONTAINERS = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""


@dataclass(frozen=True)
class Podman:
    """A podman with folders of its own."""

    env: dict[str, str]

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["podman", *words], env={**os.environ, **self.env}, capture_output=True, text=True, timeout=120
        )

    def containers(self) -> list[str]:
        """Every container there is, running or not."""
        return self("ps", "-a", "--format", "{{.Names}}").stdout.split()


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman with the image of a stand-in for vLLM; skips where it runs no container."""
    if os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip("podman is not installed, or this is not root: tests/run_engines docker installs it")
    folder = tmp_path_factory.mktemp("podman")
    (folder / "storage.conf").write_text(STORAGE.format(folder=folder))
    (folder / "containers.conf").write_text(CONTAINERS)
    env = {
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "MSCLI_CONTAINER_ENGINE": "podman",
    }
    made = Podman(env)
    network = Path("/sys/class/net/cni-podman0").exists()
    program = folder / "program" / "vllm"
    program.parent.mkdir()
    source = (SUPPORT / "containers" / "standin_vllm.py").read_text()
    program.write_text(f"#!{base_prefix(Path(sys.executable))}/bin/python3\n{source}")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        links = {"/opt/bin/vllm": str(program)}
        make_image(("podman",), IMAGE, Path(sys.executable), program.parent, links=links)
    try:
        tried = made("run", "--rm", "--publish", "127.0.0.1::8000", IMAGE, "sleep", "0")
        if tried.returncode != 0:
            pytest.skip(f"podman runs no container here: {tried.stderr.strip()[-300:]}")
        yield made
    finally:
        made("rm", "-af")
        made("rmi", "-af")
        if not network:
            subprocess.run(["ip", "link", "delete", "cni-podman0"], capture_output=True)


@pytest.fixture
def arguments(podman: Podman, user_env: dict[str, str], home: Path, tiny_model: TinyModels) -> list[str]:
    user_env.update(podman.env)
    write_profile(home)
    return ["up", "tiny", "--weights", str(tiny_model("small31", formats=("mistral",)).folder), "--json"]


def test_the_whole_job(arguments: list[str], mscli: Mscli, podman: Podman) -> None:
    up = mscli(*arguments, env={"MSCLI_API_KEY": KEY})
    assert up.code == 0, up.out
    assert podman.containers() == [up.data["instance"]["container"]]
    assert "Hello! This is a stand-in." in mscli("chat", "hello").out
    assert mscli("restart", "--json").data["instance"]["state"] == "ready"
    stopped = mscli("down", "--json").data["stopped"][0]
    assert (stopped["signal"], stopped["survivors"], stopped["port_free"]) == ("SIGINT", [], True)
    assert podman.containers() == []


def test_the_client_is_killed(arguments: list[str], mscli: Mscli, podman: Podman) -> None:
    instance = mscli(*arguments).data["instance"]
    init = int(podman("inspect", "--format", "{{.State.Pid}}", instance["container"]).stdout)
    os.kill(instance["pid"], signal.SIGKILL)
    assert process.wait_death(instance["pid"], 10)
    now = mscli("status", "tiny", "--json").envelope["data"]["instances"][0]
    assert (now["state"], now["orphaned"]) == ("crashed", True)
    assert init in now["orphans"]
    stopped = mscli("down", "tiny", "--json").data["stopped"][0]
    assert (stopped["survivors"], stopped["port_free"]) == ([], True)
    assert podman.containers() == []
    seen = process.stat(init)
    assert seen is None or seen.state in "ZX"


def test_it_is_listed_by_its_name(arguments: list[str], mscli: Mscli) -> None:
    listed = next(each for each in mscli("engines", "--json").data["engines"] if each["name"] == "vllm-docker")
    assert listed["version"].startswith("podman ")
    assert listed["note"] is None


def test_a_gpu_without_a_cdi_specification_is_named(podman: Podman) -> None:
    cause = probe_gpus(Client(("podman",), "podman", None, podman.env), IMAGE, ["GPU-a"])
    assert cause is not None
    assert cause.code == "cdi"


REGISTRIES = """\
[[registry]]
location = "127.0.0.1"
insecure = true
"""


class Heard:
    """A listener that keeps the bytes it hears of."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []

    def progress(self, progress: Progress) -> None:
        self.seen.append(progress)

    def note(self, note: Note) -> None:
        pass


def test_an_image_is_fetched_with_its_bytes_told(
    podman: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "registries.conf").write_text(REGISTRIES)
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    client, heard = Client(("podman",), "podman", None, podman.env), Heard()
    with Registry([layer("small", os.urandom(2_000_000)), layer("large", os.urandom(20_000_000))]) as registry:
        assert compressed_bytes(client, registry.image) == registry.size
        pull(client, registry.image, heard, registry.size)
        assert image_id(client, registry.image)
    told = [each.done_bytes for each in heard.seen if each.stage == "downloading"]
    assert told == sorted(told)
    assert any(0.1 * registry.size < done < 0.9 * registry.size for done in told)
    assert heard.seen[-1].stage == "done"
