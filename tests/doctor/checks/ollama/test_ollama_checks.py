"""What the doctor finds about Ollama, on servers that run and services that only systemctl knows."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.machines.described_machines import inventory_of
from support.ollama.ollama_user import SMALL, User, Visit, play

from mscli.doctor.checks.check import CheckContext
from mscli.engines.ollama.api import Api
from mscli.lifecycle.decision import chosen
from mscli.paths import places

Start = Callable[..., tuple[str, int]]
Machine = Callable[..., dict[str, str]]


def on(name: str, machine: Machine, profile: str | None = None) -> CheckContext:
    """The context of this process's user, on a described machine."""
    ctx = CheckContext(places(), env=dict(os.environ), chosen=chosen(profile, None, places()) if profile else None)
    ctx.once("inventory", lambda: inventory_of(name, machine), of=CheckContext.__module__)
    return ctx


def test_a_machine_without_ollama_is_no_failure(user: User, visit: Visit, nobody: str) -> None:
    (user.bin / "ollama").unlink()
    found = visit(nobody)
    assert {each.status for findings in found.values() for each in findings} == {"skipped"}


def test_a_healthy_server_gives_no_trouble(user: User, visit: Visit, start: Start) -> None:
    host, _ = start()
    (user.home / ".ollama" / "models").mkdir(parents=True, exist_ok=True)
    found = visit(host)
    assert {each.status for findings in found.values() for each in findings} <= {"ok", "skipped"}, found
    assert found["server"][0].seen.startswith(f"Ollama 0.32.15 at {host}")


def test_a_program_without_server_is_started_by_mscli_when_needed(visit: Visit, nobody: str) -> None:
    assert visit(nobody)["server"][0].status == "ok"


def test_an_installed_service_that_is_stopped_is_named_and_no_second_server_advised(
    user: User, visit: Visit, nobody: str
) -> None:
    user.service(ActiveState="inactive", MainPID="0")
    found = visit(nobody)["server"][0]
    assert (found.status, found.code, found.command) == ("fail", "ollama_not_running", "sudo systemctl start ollama")
    assert "not `ollama serve`" in found.remedy


def test_a_service_that_was_switched_off_on_purpose_is_only_mentioned(user: User, visit: Visit, nobody: str) -> None:
    user.service(ActiveState="inactive", UnitFileState="disabled")
    assert visit(nobody)["server"][0].status == "warn"


def test_a_service_that_starts_again_and_again_is_named_with_what_its_log_says(
    user: User, visit: Visit, nobody: str
) -> None:
    user.service(ActiveState="activating", NRestarts="151")
    user.journal(
        "ollama.service: Scheduled restart job, restart counter is at 151.",
        "Started ollama.service - Ollama Service.",
        "Error: mkdir /home/lasse/model_drive: permission denied",
        "ollama.service: Main process exited, code=exited, status=1/FAILURE",
    )
    found = visit(nobody)
    assert found["server"][0].code == "ollama_not_running"
    assert "after 151 restarts" in found["server"][0].seen
    assert (found["log"][0].status, found["log"][0].code) == ("fail", "permissions")


def test_a_port_that_something_else_holds_is_named_with_its_owner(visit: Visit, stranger: str) -> None:
    found = visit(stranger)["server"][0]
    assert (found.status, found.code) == ("fail", "port")
    assert f"PID {os.getpid()}" in found.seen


def test_an_address_on_another_machine_that_does_not_answer_is_named(visit: Visit) -> None:
    found = visit("192.0.2.7:11434")["server"][0]
    assert (found.status, found.code) == ("warn", "ollama_not_running")
    assert "192.0.2.7:11434 (OLLAMA_HOST, another machine)" in found.seen


def test_a_server_that_holds_its_port_and_does_not_answer_is_no_stranger(
    user: User, visit: Visit, start: Start
) -> None:
    host, pid = start()
    os.kill(pid, signal.SIGSTOP)
    try:
        found = visit(host)["server"][0]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (found.status, found.code) == ("warn", "ollama_not_running")


def test_a_service_whose_user_is_made_at_its_start_is_no_failure(user: User, visit: Visit, nobody: str) -> None:
    user.service(ActiveState="failed", User="ollama-of-a-moment", DynamicUser="yes")
    assert visit(nobody)["folder"][0].status == "skipped"


@pytest.fixture
def stranger() -> Iterator[str]:
    """An address at which a server of another kind answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    talk, _ = server.accept()
                except OSError:
                    return
                with talk:
                    talk.recv(4096)
                    talk.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")

        threading.Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_clients_that_look_elsewhere_than_the_service_listens_are_told(
    user: User, visit: Visit, start: Start, nobody: str
) -> None:
    host, pid = start()
    user.service(MainPID=str(pid), Environment=f"OLLAMA_HOST={host}")
    found = visit(nobody)["identity"]
    assert "ollama_not_running" in {each.code for each in found}
    assert any(f"export OLLAMA_HOST={host}" in each.remedy for each in found)


def test_a_server_beside_the_service_is_two_users(user: User, visit: Visit, start: Start) -> None:
    host, _ = start()
    user.service(MainPID="1", Environment="OLLAMA_MODELS=/srv/models", User="nobody")
    codes = {each.code: each for each in visit(host)["identity"]}
    assert "ollama_two_users" in codes
    assert "/srv/models" in codes["ollama_two_users"].seen


def test_models_of_this_user_that_the_server_does_not_see_are_named(user: User, visit: Visit, start: Start) -> None:
    (user.home / ".ollama" / "models" / "manifests" / "registry").mkdir(parents=True)
    host, _ = start(OLLAMA_MODELS=str(user.home / "elsewhere"))
    assert "ollama_two_users" in {each.code for each in visit(host)["identity"]}


def test_a_server_older_than_its_program_is_to_be_restarted(user: User, visit: Visit, start: Start) -> None:
    play(user.home / "scene.json", version="0.7.0", client_version="0.11.2")
    host, _ = start()
    found = visit(host)["version"][0]
    assert found.code == "version_backend_old"
    assert "Restart it: 0.11.2 is installed already" in found.remedy


def test_a_server_too_old_for_the_profile_fails(
    user: User, visit: Visit, start: Start, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(user.home / "scene.json", version="0.6.2", client_version="0.6.2")
    host, _ = start()
    monkeypatch.setenv("OLLAMA_HOST", host)
    found = visit(ctx=on("rtx4090", machine, "small-q4"))["version"][0]
    assert (found.status, found.code) == ("fail", "version_backend_old")
    assert "needs 0.6.5" in found.seen


def test_a_server_too_old_for_every_model_is_warned_about_without_a_profile(
    user: User, visit: Visit, start: Start
) -> None:
    play(user.home / "scene.json", version="0.6.2", client_version="0.6.2")
    found = visit(start()[0])["version"][0]
    assert (found.status, found.code) == ("warn", "version_backend_old")


def test_a_context_set_in_the_wrong_process_is_named(visit: Visit, start: Start) -> None:
    host, _ = start()
    found = visit(host, OLLAMA_CONTEXT_LENGTH="32768")["settings"][0]
    assert (found.status, found.code) == ("warn", "context_truncated")
    assert "the server does not see it" in found.seen


def test_a_short_context_in_the_servers_environment_is_named(visit: Visit, start: Start) -> None:
    host, _ = start(OLLAMA_CONTEXT_LENGTH="2048")
    found = visit(host)["settings"][0]
    assert (found.status, found.code) == ("warn", "context_truncated")


def test_a_home_that_systemd_hides_is_named(user: User, visit: Visit, nobody: str) -> None:
    user.service(ActiveState="failed", Environment="OLLAMA_MODELS=/home/lasse/models", ProtectHome="yes")
    found = visit(nobody)["folder"][0]
    assert (found.status, found.code) == ("fail", "permissions")
    assert "ProtectHome=yes" in found.seen


def test_a_service_user_that_does_not_exist_is_named(user: User, visit: Visit, nobody: str) -> None:
    user.service(ActiveState="failed", User="no-such-user")
    found = visit(nobody)["folder"][0]
    assert (found.status, found.code) == ("fail", "permissions")


OTHER = "daemon"


@pytest.mark.skipif(OTHER not in {entry.pw_name for entry in pwd.getpwall()}, reason=f"no user {OTHER}")
@pytest.mark.parametrize(("mode", "lacks"), [(0o700, "execute"), (0o744, "execute"), (0o755, None)])
def test_a_folder_on_the_way_that_the_services_user_may_not_enter_is_named(
    user: User, visit: Visit, nobody: str, tmp_path: Path, mode: int, lacks: str | None
) -> None:
    root = tmp_path / "root"
    models = root / "srv" / "private" / "models"
    models.mkdir(parents=True, mode=0o777)
    models.chmod(0o777)
    root.chmod(0o755)
    (root / "srv").chmod(0o755)
    models.parent.chmod(mode)
    user.service(ActiveState="failed", User=OTHER, Environment="OLLAMA_MODELS=/srv/private/models")
    ctx = replace(CheckContext(places(), env={**os.environ, "OLLAMA_HOST": nobody}), root=root)
    found = visit(ctx=ctx)["folder"][0]
    if lacks is None:
        assert found.status == "ok"
        return
    assert (found.status, found.code) == ("fail", "permissions")
    assert f"no {lacks} permission on /srv/private" in found.seen
    assert found.command == "sudo chmod o+x /srv/private"


@pytest.mark.skipif(OTHER not in {entry.pw_name for entry in pwd.getpwall()}, reason=f"no user {OTHER}")
def test_a_folder_that_is_missing_where_its_user_may_not_make_it_is_named(
    user: User, visit: Visit, nobody: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "var" / "lib").mkdir(parents=True)
    for folder in (root, root / "var", root / "var" / "lib"):
        folder.chmod(0o755)
    user.service(ActiveState="failed", User=OTHER, Environment="HOME=/var/lib/ollama")
    ctx = CheckContext(places(), env={**os.environ, "OLLAMA_HOST": nobody}, root=root)
    found = visit(ctx=ctx)["folder"][0]
    assert (found.status, found.code) == ("fail", "permissions")
    assert "no write permission on /var/lib" in found.seen
    assert found.command == f"sudo install -d -o {OTHER} -g {OTHER} /var/lib/ollama/.ollama/models"


def test_weights_that_do_not_fit_the_servers_disk_are_named(
    user: User, visit: Visit, nobody: str, machine: Machine, full_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", nobody)
    user.service(ActiveState="failed", Environment=f"OLLAMA_MODELS={full_disk}/models")
    found = visit(ctx=on("rtx4090", machine, "small-q4"))["disk"][0]
    assert (found.status, found.code) == ("fail", "disk_full")


@pytest.fixture
def full_disk() -> Path:
    """A file system that holds next to nothing."""
    return Path("/proc")


def loaded(host: str) -> None:
    """Have the server at `host` hold a model in memory."""
    import httpx

    httpx.post(f"http://{host}/api/pull", json={"model": SMALL}, timeout=20)
    address, _, port = host.rpartition(":")
    Api(address, int(port)).load(SMALL, -1)


@pytest.mark.parametrize(("share", "status"), [(1.0, "ok"), (0.6, "warn"), (0.0, "fail")])
def test_a_model_that_sits_on_the_cpu_of_a_machine_with_gpus_is_named(
    user: User,
    visit: Visit,
    start: Start,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    status: str,
) -> None:
    play(user.home / "scene.json", gpu_share=share)
    host, _ = start()
    loaded(host)
    monkeypatch.setenv("OLLAMA_HOST", host)
    found = visit(ctx=on("rtx4090", machine))["gpu"][0]
    assert found.status == status
    assert found.code == (None if status == "ok" else "cpu_fallback")


DISCOVERY = 'time=1 level=INFO msg="inference compute" id=0 library=cpu compute="" name=cpu'
GPU = (
    'time=1 level=INFO msg="inference compute" id=GPU-1 library=CUDA compute=8.9 name=CUDA0'
    ' description="NVIDIA GeForce RTX 4090" total="24.0 GiB" available="23.1 GiB"'
)
BEGIN = 'time=1 level=INFO source=routes.go:1234 msg="server config" env="map[]"'
MISMATCH = 'time=1 level=WARN source=gpu.go:607 msg="nvml vram init failure: 18"'


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((BEGIN, GPU), ("ok", None)),
        ((BEGIN, DISCOVERY), ("fail", "cpu_fallback")),
        ((BEGIN, MISMATCH, DISCOVERY), ("fail", "nvml_mismatch")),
        ((BEGIN, MISMATCH, DISCOVERY, BEGIN, GPU), ("ok", None)),
        ((BEGIN, GPU, 'level=WARN source=runner.go:130 msg="truncating input prompt" limit=2048 prompt=91541'),
         ("warn", "context_truncated")),
    ],
    ids=["a GPU is found", "no GPU is found", "library and module differ", "mended since", "a prompt was cut"],
)  # fmt: skip
def test_what_the_services_log_says_since_its_last_start_counts(
    user: User,
    visit: Visit,
    start: Start,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    lines: tuple[str, ...],
    expected: tuple[str, str | None],
) -> None:
    host, pid = start()
    user.service(MainPID=str(pid), User=pwd.getpwuid(os.getuid()).pw_name, Environment=f"OLLAMA_HOST={host}")
    user.journal(*lines)
    monkeypatch.setenv("OLLAMA_HOST", host)
    found = visit(ctx=on("rtx4090", machine))["log"][0]
    assert (found.status, found.code) == expected


def test_a_server_without_gpu_on_a_machine_without_one_is_as_it_should_be(
    user: User, visit: Visit, start: Start, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, pid = start()
    user.service(MainPID=str(pid), User=pwd.getpwuid(os.getuid()).pw_name, Environment=f"OLLAMA_HOST={host}")
    user.journal(BEGIN, DISCOVERY)
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert visit(ctx=on("no-driver", machine))["log"][0].status == "ok"


def test_a_log_that_this_user_may_not_read_is_said_to_be_unread(user: User, visit: Visit, start: Start) -> None:
    host, pid = start()
    user.service(MainPID=str(pid), User=pwd.getpwuid(os.getuid()).pw_name, Environment=f"OLLAMA_HOST={host}")
    user.journal("-- No entries --", err="Hint: You are currently not seeing messages from other users and the system.")
    found = visit(host)["log"][0]
    assert found.status == "skipped"
    assert "sudo journalctl" in found.seen
