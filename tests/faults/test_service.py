"""`mscli service`: an instance under systemd, by a stand-in for what it listens to, and by a real user manager."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import SUPPORT
from support.faults.user import User, ended, until
from support.instances.instance_records import write_record

from mscli.instances.records import Record, Records
from mscli.lifecycle.service import exit_status, unit_text
from mscli.paths import places


def free_port() -> int:
    """A port that no mscli chooses by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def record(tmp_path: Path) -> Record:
    made = write_record(Records(places({"MSCLI_HOME": str(tmp_path)})), "small", None, "small:0")
    return replace(made, title="100% a model")


def test_systemd_finds_no_fault_in_the_unit(record: Record, tmp_path: Path) -> None:
    env = {"PATH": "/a b:/usr/bin", "MSCLI_HOME": 'C:\\"%h$HOME', "HF_TOKEN": "secret", "MSCLI_API_KEY": "secret"}
    unit = tmp_path / "mscli-small.service"
    unit.write_text(unit_text(record, env))
    assert "secret" not in unit.read_text()
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    done = subprocess.run(["systemd-analyze", "--user", "verify", str(unit)], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "mscli-small" in line]
    assert said == [], "it exits with 0 whatever it finds"


@pytest.mark.parametrize(
    ("code", "cause", "expected"),
    [
        ("no_fit", None, 78),
        ("profile_invalid", None, 78),
        ("not_running", None, 78),
        ("start_failed", "cli_flags", 78),
        ("start_failed", "engine_crashed", 5),
        ("no_gpu", "no_driver", 5),
        ("port_taken", None, 5),
    ],
)
def test_systemd_is_told_what_another_start_would_only_meet_again(code: str, cause: str | None, expected: int) -> None:
    assert exit_status({"code": code, "details": {"cause": cause}}, told=5) == expected


def test_systemd_is_given_the_companion_once_the_instance_is_ready(user: User, tmp_path: Path) -> None:
    user.order("ready")
    assert user.mscli("up", "rehearsal", "--port", str(free_port())).code == 0
    assert user.mscli("down").code == 0
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(30)
        user.env |= {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "2000000"}
        started = user.begin("service", "run", "rehearsal")
        said = b""
        while b"READY=1" not in said:
            said = systemd.recv(1000)
        assert ended(started).code == 0
        (shown,) = user.mscli("status", "--json").data["instances"]
        assert said.startswith(f"MAINPID={shown['pid']}\n".encode())
        assert systemd.recv(1000) == b"WATCHDOG=1"
        os.kill(shown["pid"], signal.SIGTERM)  # as `systemctl stop` does
        until(lambda: not user.engines())
    # the companion ends a moment after its engine
    until(lambda: user.mscli("status", "--all", "--json").data["instances"][0]["state"] == "stopped")


def test_without_systemd_it_is_said_what_to_do(user: User) -> None:
    user.order("ready")
    assert user.mscli("up", "rehearsal").code == 0
    installed = user.mscli("service", "install", "rehearsal", "--json", DBUS_SESSION_BUS_ADDRESS="unix:path=/nowhere")
    assert (installed.code, installed.error["code"]) == (2, "usage")
    assert "mscli up --supervise" in installed.error["hint"]
    assert not list(Path(user.env["HOME"]).glob(".config/systemd/user/*"))
    assert len(user.engines()) == 1


needs_user_manager = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/lib/systemd/systemd").exists() or not shutil.which("unshare"),
    reason="needs root and systemd for a user manager in namespaces of its own",
)


@needs_user_manager
@pytest.mark.parametrize("hangs", ["", pytest.param("yes", marks=pytest.mark.rounds)], ids=["killed", "hung"])
def test_a_real_user_manager_runs_keeps_and_stops_it(user_env: dict[str, str], tmp_path: Path, hangs: str) -> None:
    told_under_systemd({**user_env, "HANGS": hangs, "ORDERS": ""}, tmp_path)


@needs_user_manager
@pytest.mark.rounds  # a minute without an answer counts as hung, and the kernel's kills are counted
def test_a_real_user_manager_keeps_what_answers_503_and_what_the_kernel_kills(
    user: User, tmp_path: Path, small_memory: Path
) -> None:
    user.order("ready")
    server = tmp_path / "bin" / "llama-server"
    server.write_text(server.read_text().replace('os.environ["SERVER_ORDERS"]', repr(str(user.orders))))
    told_under_systemd({**user.env, "HANGS": "", "ORDERS": str(user.orders), "MEMORY": str(small_memory)}, tmp_path)


def told_under_systemd(env: dict[str, str], tmp_path: Path) -> None:
    """Plays the story of a service beside a systemd user manager in namespaces of its own."""
    home = tmp_path / "systemd-home"
    home.mkdir()
    script = SUPPORT / "faults" / "user_systemd.sh"
    story = SUPPORT / "faults" / "service_story.sh"
    argv = ["unshare", "-m", "-p", "-f", "--mount-proc", "bash", str(script), str(home), "bash", str(story)]
    more = {"PYTHON": sys.executable, "PORT": str(free_port())}
    done = subprocess.run(argv, env={**env, **more}, capture_output=True, text=True, timeout=400, check=False)
    if "mount" in done.stderr.partition("\n")[0]:
        pytest.skip(f"no namespaces here: {done.stderr}")
    assert done.stdout.endswith("all of it\n"), done.stdout + done.stderr
