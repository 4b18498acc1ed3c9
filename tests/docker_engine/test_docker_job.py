"""The whole job with a stand-in for docker: up, status, logs, chat, restart, down, and what must not be left."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from home import IMAGE, KEY, StandinDocker
from run_mscli import Mscli, Ran

from mscli.lifecycle import port, process

Up = Callable[..., Ran]


@pytest.fixture
def running(up: Up, docker: StandinDocker) -> Ran:
    """A ready instance with a key."""
    docker.has()
    ran = up("--json", env={"MSCLI_API_KEY": KEY})
    assert ran.code == 0, ran.out + ran.err
    return ran


def test_up_status_logs_chat_and_down(running: Ran, mscli: Mscli, docker: StandinDocker) -> None:
    instance = running.data["instance"]
    assert (instance["state"], instance["engine"]) == ("ready", "vllm-docker")
    assert [instance["container"]] == docker.containers()
    assert running.data["observed"]["kv_tokens"] == 1048576
    assert mscli("status", "--json").data["instances"][0]["state"] == "ready"
    assert any("Starting to load model" in line for line in mscli("logs", "--json").data["lines"])
    assert "Hello! This is a stand-in." in mscli("chat", "hello").out

    stopped = mscli("down", "--json").data["stopped"][0]
    assert (stopped["signal"], stopped["survivors"], stopped["port_free"]) == ("SIGINT", [], True)
    assert docker.containers() == []
    assert mscli("status").code == 3


def test_the_same_up_again_reports_what_runs(running: Ran, up: Up) -> None:
    again = up("--json", env={"MSCLI_API_KEY": KEY})
    assert again.data["already"] is True


def test_restart_keeps_port_and_key(running: Ran, mscli: Mscli, docker: StandinDocker) -> None:
    before = running.data["instance"]
    again = mscli("restart", "--json").data["instance"]
    assert (again["port"], again["container"]) == (before["port"], before["container"])
    assert again["pid"] != before["pid"]
    assert mscli("chat", "hello").code == 0
    assert len(docker.containers()) == 1


def test_status_of_a_healthy_instance_asks_nobody(running: Ran, mscli: Mscli, docker: StandinDocker) -> None:
    before = len(docker.calls())
    mscli("status", "--json")
    mscli("status")
    assert len(docker.calls()) == before


def test_what_a_dry_run_shows_is_what_runs(up: Up, docker: StandinDocker) -> None:
    docker.has()
    ran = up("--json")
    (call,) = [call for call in docker.calls("run") if call[call.index("--entrypoint") + 1] == "vllm"]
    shown = ran.data["plan"]["command"]
    assert shown["argv"][1:] == call
    assert shown["argv"][0] == str(docker.programs / "docker")


def test_the_key_stands_in_one_file_and_in_no_command_line(
    running: Ran, mscli: Mscli, docker: StandinDocker, home: Path
) -> None:
    assert KEY not in json.dumps(docker.calls())
    assert mscli("chat", "hello").code == 0
    assert "--env VLLM_API_KEY " in " ".join(docker.calls("run")[-1])
    holders = [path.name for path in home.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert holders == ["key"]
    for pid in (running.data["instance"]["pid"], docker.server()):
        assert KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_an_address_for_others_makes_a_key(up: Up, docker: StandinDocker, home: Path) -> None:
    docker.has()
    ran = up("--json", "--host", "0.0.0.0")
    published = docker.calls("run")[-1]
    assert published[published.index("--publish") + 1].startswith("0.0.0.0:")
    assert (home / "state" / "instances" / "tiny" / "key").stat().st_mode & 0o777 == 0o600
    assert any("can be reached from other machines" in warning for warning in ran.data["warnings"])


@pytest.mark.parametrize("seen", ["by the engine's word", "by their mark"])
def test_a_container_whose_client_was_killed_is_named_and_ended(
    seen: str, up: Up, mscli: Mscli, docker: StandinDocker
) -> None:
    docker.has()
    if seen == "by their mark":
        docker.flag("visible")
    instance = up("--json").data["instance"]
    server = docker.server()
    os.kill(instance["pid"], signal.SIGKILL)
    process.wait_death(instance["pid"], 10)

    now = mscli("status", "--json").envelope["data"]["instances"][0]
    assert (now["state"], now["orphaned"]) == ("crashed", True)
    assert (server in now["orphans"]) is (seen == "by their mark")
    assert "left its container behind" in mscli("status").err
    refused = up("--json", "--ctx", "1024")
    assert refused.error["code"] == "instance_exists"

    down = mscli("down", "tiny", "--json").data["stopped"][0]
    assert (down["signal"], down["survivors"], down["port_free"]) == ("SIGINT", [], True)
    assert docker.containers() == []
    assert process.stat(server) is None or process.stat(server).state == "Z"  # type: ignore[union-attr]


def test_a_container_that_ended_by_itself_is_a_crash_with_nothing_left(
    running: Ran, mscli: Mscli, docker: StandinDocker
) -> None:
    os.kill(docker.server(), signal.SIGKILL)
    process.wait_death(running.data["instance"]["pid"], 10)
    now = mscli("status", "--json").envelope["data"]["instances"][0]
    assert (now["state"], now["orphaned"], now["orphans"]) == ("crashed", False, [])
    assert docker.containers() == []


def test_a_port_lost_to_somebody_else_is_tried_again_elsewhere(up: Up, docker: StandinDocker) -> None:
    docker.has()
    lost = (
        "docker: Error response from daemon: driver failed programming external connectivity on endpoint NAME "
        "(4a9cf6c3f6a8): Error starting userland proxy: listen tcp4 127.0.0.1:8000: bind: address already in use\n"
    )
    docker.goes_wrong("run", lost, times=1)
    ran = up("--json")
    assert ran.code == 0, ran.out
    assert len(docker.calls("run")) == 2


def test_a_port_that_was_asked_for_and_lost_is_named(up: Up, docker: StandinDocker) -> None:
    docker.has()
    taken = "docker: Error response from daemon: driver failed programming external connectivity on endpoint NAME: "
    docker.goes_wrong("run", f"{taken}Bind for 127.0.0.1:8124 failed: port is already allocated\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    error = up("--json", "--port", str(number)).error
    assert (error["code"], error["details"]["cause"]) == ("start_failed", "port")


def test_a_failed_start_names_vllms_own_cause_and_leaves_nothing(
    mscli: Mscli, up: Up, docker: StandinDocker, home: Path
) -> None:
    from home import write_profile

    docker.has()
    write_profile(home, options="{crash: true}")
    error = up("--json").error
    assert error["code"] == "start_failed"
    assert error["details"]["cause"].startswith("oom"), error
    assert docker.containers() == []
    assert not (home / "state" / "instances" / "tiny" / "tmp").exists()
    assert port.free("127.0.0.1", 8000) or port.listening(8000)


def test_the_image_is_what_the_profile_names(up: Up, docker: StandinDocker) -> None:
    docker.has()
    up("--json")
    assert IMAGE in docker.calls("run")[-1]
