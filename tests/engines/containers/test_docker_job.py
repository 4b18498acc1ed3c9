"""The whole job with a stand-in for docker: up, status, logs, chat, restart, down, and what must not be left."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.containers.container_home import KEY, StandinDocker, write_profile
from support.run_mscli import Mscli, Ran, call, environment
from support.tiny_models import TinyModels

from mscli.instances import process
from mscli.instances.container import publishes, remembered

Up = Callable[..., Ran]


@dataclass(frozen=True)
class Shared:
    """A ready instance that tests only ask things; `shown`: the dry run before it was started."""

    call: Callable[..., Ran]
    docker: StandinDocker
    home: Path
    start: tuple[str, ...]
    shown: dict[str, Any]
    up: dict[str, Any]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_model: TinyModels) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("shared")
    docker, home = StandinDocker(folder / "docker", folder / "bin"), folder / "home"
    docker.has()
    write_profile(home)
    env = environment(folder, home, MSCLI_API_KEY=KEY, **docker.env)

    def run(*args: str) -> Ran:
        return call(*args, env=env, quotes_logs=True)

    start = ("up", "tiny", "--weights", str(tiny_model("small31", formats=("mistral",)).folder), "--json")
    shown = run(*start, "--dry-run").data
    yield Shared(run, docker, home, start, shown, run(*start).data)
    run("down", "--all")


def test_it_is_ready_logged_and_answers(shared: Shared) -> None:
    instance = shared.up["instance"]
    assert (instance["state"], instance["engine"]) == ("ready", "vllm-docker")
    assert [instance["container"]] == shared.docker.containers()
    assert shared.up["observed"]["kv_tokens"] == 1048576
    assert any("Starting to load model" in line for line in shared.call("logs", "--json").data["lines"])
    assert "Hello! This is a stand-in." in shared.call("chat", "hello").out


def test_the_same_up_again_reports_what_runs(shared: Shared) -> None:
    assert shared.call(*shared.start).data["already"] is True


def test_status_of_a_healthy_instance_asks_nobody(shared: Shared) -> None:
    before = len(shared.docker.calls())
    assert shared.call("status", "--json").data["instances"][0]["state"] == "ready"
    shared.call("status")
    assert len(shared.docker.calls()) == before


def test_what_a_dry_run_shows_is_what_runs(shared: Shared) -> None:
    (call,) = shared.docker.calls("run")
    assert shared.shown["plan"]["command"]["argv"] == [str(shared.docker.programs / "docker"), *call]


def test_the_key_stands_in_one_file_and_in_no_command_line(shared: Shared) -> None:
    assert KEY not in json.dumps(shared.docker.calls())
    assert "--env VLLM_API_KEY " in " ".join(shared.docker.calls("run")[-1])
    holders = [path.name for path in shared.home.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert holders == ["key"]
    for pid in (shared.up["instance"]["pid"], shared.docker.server()):
        assert KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_port_is_ours_only_where_the_engine_says_so(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_DOCKER", str(shared.docker.place))
    kept = json.loads((shared.home / "state" / "instances" / "tiny" / "record.json").read_text())
    contained, number = remembered(kept["contained"]), int(kept["port"])
    assert publishes(contained, number)
    assert not publishes(contained, number + 1)
    assert not publishes(replace(contained, cidfile=contained.cidfile.with_name("none")), number)


def test_restart_keeps_port_and_key_and_down_leaves_nothing(up: Up, mscli: Mscli, docker: StandinDocker) -> None:
    docker.has()
    before = up("--json", env={"MSCLI_API_KEY": KEY}).data["instance"]
    again = mscli("restart", "--json").data["instance"]
    assert (again["port"], again["container"]) == (before["port"], before["container"])
    assert again["pid"] != before["pid"]
    assert mscli("chat", "hello").code == 0
    assert len(docker.containers()) == 1
    stopped = mscli("down", "--json").data["stopped"][0]
    assert (stopped["signal"], stopped["survivors"], stopped["port_free"]) == ("SIGINT", [], True)
    assert docker.containers() == []


def test_an_address_for_others_makes_a_key(up: Up, docker: StandinDocker, home: Path) -> None:
    docker.has()
    ran = up("--json", "--host", "0.0.0.0")
    published = docker.calls("run")[-1]
    assert published[published.index("--publish") + 1].startswith("0.0.0.0:")
    assert (home / "state" / "instances" / "tiny" / "key").stat().st_mode & 0o777 == 0o600
    assert any("can be reached from other machines" in warning for warning in ran.data["warnings"])


def killed(up: Up, docker: StandinDocker) -> int:
    """Starts an instance and kills its client; the pid of what goes on in its container."""
    docker.has()
    instance = up("--json").data["instance"]
    os.kill(instance["pid"], signal.SIGKILL)
    process.wait_death(instance["pid"], 10)
    return docker.server()


def gone(pid: int) -> bool:
    seen = process.stat(pid)
    return seen is None or seen.state in "ZX"


def test_a_container_whose_client_was_killed_is_named_and_ended(up: Up, mscli: Mscli, docker: StandinDocker) -> None:
    server = killed(up, docker)
    now = mscli("status", "--json").envelope["data"]["instances"][0]
    assert (now["state"], now["orphaned"], now["orphans"]) == ("crashed", True, [])
    assert re.search(r"left its container \S+ running", mscli("status").err)
    down = mscli("down", "tiny", "--json").data["stopped"][0]
    assert (down["signal"], down["survivors"], down["port_free"]) == ("SIGINT", [], True)
    assert docker.containers() == []
    assert gone(server)


def test_the_doctor_names_a_container_left_behind_and_counts_nothing_as_stopped(
    up: Up, mscli: Mscli, docker: StandinDocker
) -> None:
    server = killed(up, docker)
    container = docker.containers()[0]
    ran = mscli("doctor", "--only", "instances", "--fix", "--yes", "--json")
    (found,) = [each for each in ran.data["findings"] if each["id"] == "instances.orphans"]
    assert (found["status"], found["command"]) == ("fail", "mscli down tiny")
    assert container in found["seen"]
    assert "mscli down tiny" in [each["command"] for each in ran.data["commands"]]
    assert ran.data["fixes"] == []
    now = mscli("status", "--json").envelope["data"]["instances"][0]
    assert (now["state"], now["orphaned"], gone(server)) == ("crashed", True, False)


def test_a_container_left_behind_keeps_its_instances_name(up: Up, docker: StandinDocker) -> None:
    docker.flag("visible")
    server = killed(up, docker)
    refused = up("--json", "--ctx", "1024")
    assert refused.error["code"] == "instance_exists"
    assert not gone(server)


def test_a_container_that_ended_by_itself_is_a_crash_with_nothing_left(
    up: Up, mscli: Mscli, docker: StandinDocker
) -> None:
    docker.has()
    instance = up("--json").data["instance"]
    os.kill(docker.server(), signal.SIGKILL)
    process.wait_death(instance["pid"], 10)
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


def test_a_failed_start_names_vllms_own_cause_and_leaves_nothing(
    mscli: Mscli, up: Up, docker: StandinDocker, home: Path
) -> None:
    docker.has()
    write_profile(home, options="{crash: true}")
    error = up("--json").error
    assert error["code"] == "start_failed"
    assert error["details"]["cause"].startswith("oom"), error
    assert docker.containers() == []
    assert not (home / "state" / "instances" / "tiny" / "tmp").exists()
