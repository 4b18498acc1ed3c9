"""A real Docker engine, and a container that behaves as vLLM's: the whole job, and nothing left whatever is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.containers.container_home import IMAGE, KEY
from support.containers.real_docker import Dockerd, wait_for
from support.run_mscli import Mscli, Ran

from mscli.engines.containers.client import find_client
from mscli.engines.containers.run import probe_gpus
from mscli.instances import process
from mscli.lifecycle import port

pytestmark = pytest.mark.engines
RealUp = Callable[..., Ran]
TIMEOUT_S = 60


@dataclass
class Running:
    """A ready instance in a container."""

    engine: Dockerd
    mscli: Mscli
    folder: Path
    instance: dict[str, Any]
    identity: str
    init: int

    def now(self) -> dict[str, Any]:
        """What `mscli status` says of it."""
        return dict(self.mscli("status", "tiny", "--json").envelope["data"]["instances"][0])

    def down(self) -> dict[str, Any]:
        """`mscli down`, which must do it."""
        return dict(self.mscli("down", "tiny", "--json").data["stopped"][0])

    def assert_nothing_left(self) -> None:
        """No container, no process in it or of its client, no volume, no temporary file, and the port is free."""
        assert self.engine.containers() == []
        assert self.engine.processes(self.identity) == []
        assert self.engine.volumes() == []
        here = str(self.folder).encode()
        mine = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if here in _command(pid)]
        assert mine == [], [process.describe(pid) for pid in mine]
        assert port.free("127.0.0.1", self.instance["port"])
        assert not (self.folder / "tmp").exists()


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def running(dockerd: Dockerd, real_up: RealUp, mscli: Mscli, home: Path) -> Running:
    return started(dockerd, real_up, mscli, home)


def started(engine: Dockerd, real_up: RealUp, mscli: Mscli, home: Path) -> Running:
    up = real_up(engine, env={"MSCLI_API_KEY": KEY})
    assert up.code == 0, up.out + up.err
    instance = up.data["instance"]
    folder = home / "state" / "instances" / "tiny"
    identity = (folder / "tmp" / "container").read_text().strip()
    init = int(engine.docker("inspect", "--format", "{{.State.Pid}}", identity))
    return Running(engine, mscli, folder, instance, identity, init)


def test_the_whole_job(running: Running, mscli: Mscli) -> None:
    assert running.instance["state"] == running.now()["state"] == "ready"
    assert [running.instance["container"]] == running.engine.containers()
    assert "Hello! This is a stand-in." in mscli("chat", "hello").out
    assert any("Starting to load model" in line for line in mscli("logs", "--json").data["lines"])
    again = mscli("restart", "--json").data["instance"]
    assert (again["port"], again["state"]) == (running.instance["port"], "ready")
    stopped = running.down()
    assert (stopped["signal"], stopped["survivors"], stopped["port_free"]) == ("SIGINT", [], True)
    running.assert_nothing_left()


def test_it_runs_as_it_was_asked_to(running: Running) -> None:
    seen = json.loads(running.engine.docker("inspect", running.identity))[0]
    host = seen["HostConfig"]
    number = str(running.instance["port"])
    assert host["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": number}]}
    assert (host["ShmSize"], host["Privileged"], host["AutoRemove"]) == (8 * 2**30, False, True)
    assert host["RestartPolicy"]["Name"] in ("", "no")
    assert [mount["RW"] for mount in seen["Mounts"]] == [False]
    assert seen["Config"]["Labels"]["mscli.instance"] == "tiny"
    assert "HF_HUB_OFFLINE=1" in seen["Config"]["Env"]
    # who may speak to Docker may read it, as docs/reference/containers.md says; nobody else
    assert f"VLLM_API_KEY={KEY}" in seen["Config"]["Env"]
    everyones = [_command(int(pid)) for pid in os.listdir("/proc") if pid.isdigit()]
    assert [line for line in everyones if KEY.encode() in line] == []


def test_the_client_is_killed(running: Running, mscli: Mscli) -> None:
    os.kill(running.instance["pid"], signal.SIGKILL)
    assert process.wait_death(running.instance["pid"], 10)
    now = running.now()
    assert (now["state"], now["orphaned"]) == ("crashed", True)
    assert running.init in now["orphans"]
    assert running.instance["container"] in mscli("status").err
    stopped = running.down()
    assert (stopped["signal"], stopped["survivors"], stopped["port_free"]) == ("SIGINT", [], True)
    running.assert_nothing_left()


def test_the_shim_is_killed(running: Running) -> None:
    shim = int(Path(f"/proc/{running.init}/stat").read_text().rpartition(")")[2].split()[1])
    assert b"containerd-shim" in _command(shim)
    os.kill(shim, signal.SIGKILL)
    wait_for(lambda: running.now()["state"] == "crashed", lambda: str(running.now()))
    assert running.mscli("down", "tiny").code == 0
    assert running.engine.processes(running.identity) == []
    assert running.engine.containers() == []
    assert running.engine.volumes() == []


def test_the_containers_first_process_is_killed(running: Running) -> None:
    os.kill(running.init, signal.SIGKILL)
    assert process.wait_death(running.instance["pid"], 20)
    now = running.now()
    assert (now["state"], now["orphaned"], now["orphans"]) == ("crashed", False, [])
    assert running.engine.containers() == []
    assert running.engine.processes(running.identity) == []


def test_the_container_is_removed_behind_our_back(running: Running) -> None:
    running.engine.docker("rm", "-f", running.identity)
    assert process.wait_death(running.instance["pid"], 20)
    now = running.now()
    assert (now["state"], now["orphaned"], now["orphans"]) == ("crashed", False, [])


def test_a_stopped_container_is_ended(running: Running) -> None:
    for pid in running.engine.processes(running.identity):
        os.kill(pid, signal.SIGSTOP)
    assert running.down()["survivors"] == []
    running.assert_nothing_left()


def test_a_paused_container_is_ended(running: Running) -> None:
    running.engine.docker("pause", running.identity)
    assert running.down()["survivors"] == []
    running.assert_nothing_left()


def test_down_in_the_moment_of_the_start_leaves_nothing(dockerd: Dockerd, real_up: RealUp, mscli: Mscli) -> None:
    up = real_up(dockerd, "--no-wait")
    assert up.code == 0, up.out
    assert mscli("down", "tiny", "--json").data["stopped"][0]["survivors"] == []
    assert dockerd.containers() == []


def test_the_engine_is_stopped(engine_of_its_own: Dockerd, real_up: RealUp, mscli: Mscli, home: Path) -> None:
    running = started(engine_of_its_own, real_up, mscli, home)
    engine_of_its_own.stop()
    assert process.wait_death(running.instance["pid"], 20)
    now = running.now()
    assert (now["state"], now["orphaned"], now["orphans"]) == ("crashed", False, [])
    assert real_up(engine_of_its_own).error["details"]["cause"] == "engine_missing"
    engine_of_its_own.start()
    assert engine_of_its_own.containers() == []
    assert real_up(engine_of_its_own).code == 0
    running.down()
    running.assert_nothing_left()


def test_the_engine_is_killed_and_its_container_lives_on(
    engine_of_its_own: Dockerd, real_up: RealUp, mscli: Mscli, home: Path
) -> None:
    running = started(engine_of_its_own, real_up, mscli, home)
    engine_of_its_own.stop(signal.SIGKILL)
    assert process.wait_death(running.instance["pid"], 20)
    assert (running.now()["state"], running.init in running.now()["orphans"]) == ("crashed", True)
    assert running.down()["survivors"] == []
    assert process.stat(running.init) is None or process.stat(running.init).state in "ZX"  # type: ignore[union-attr]
    engine_of_its_own.start()
    wait_for(lambda: not engine_of_its_own.containers(), lambda: str(engine_of_its_own.containers()))


def test_a_port_that_another_container_holds_is_named(running: Running, real_up: RealUp) -> None:
    engine, number = running.engine, running.instance["port"]
    other = real_up(engine, "--name", "other", "--port", str(number), "--no-wait")
    assert other.error["code"] == "port_taken"


def test_a_gpu_that_this_engine_cannot_give_is_named_before_weights(
    dockerd: Dockerd, mscli: Mscli, user_env: dict[str, str], machine: Callable[..., dict[str, str]]
) -> None:
    user_env["DOCKER_HOST"] = dockerd.host
    error = mscli("up", "small-bf16", "--container", "--offline", "--json", env=machine("rtx5090-x2")).error
    assert (error["code"], error["details"]["cause"]) == ("engine_unsupported", "docker_gpu")


def test_the_throw_away_container_says_why_it_got_no_gpu(dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", dockerd.host)
    found = probe_gpus(find_client(), IMAGE, ["GPU-a", "GPU-b"])
    assert found is not None
    assert found.code == "docker_gpu"
    assert not [name for name in dockerd.containers() if name.startswith("mscli-probe")]
