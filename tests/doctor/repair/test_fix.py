"""`mscli doctor --fix` on real leftovers: what is ours is tidied, what is not survives."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.doctor.in_process import Doctor, doctor_of
from support.instances.instance_records import IDLE
from support.instances.leftovers import Leftovers, alive_pid, dead_identity
from support.run_mscli import Mscli, Ran

from mscli.instances.process import MARK, wait_death
from mscli.weights.cache import Cache
from mscli.weights.listing import RemoteFile
from mscli.weights.partial import partial_paths

INSTANCES = ("--fix", "--only", "instances")


@pytest.fixture
def doctor(user_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """`mscli doctor ... --json` of this user."""
    run = doctor_of(user_env, monkeypatch, capsys)
    return lambda *args: run(*args, "--json")


@pytest.fixture
def left(user_env: dict[str, str], tmp_path: Path) -> Iterator[Leftovers]:
    leftovers = Leftovers(user_env, tmp_path)
    yield leftovers
    leftovers.stop()


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with a digest of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


def fixes(ran: Ran) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in ran.data["fixes"]}


def test_an_instance_that_crashed_counts_as_stopped_and_keeps_its_log(mscli: Mscli) -> None:
    pid = mscli("up", "rehearsal", "--json").data["instance"]["pid"]
    os.kill(pid, signal.SIGKILL)
    assert wait_death(pid, 10)
    assert mscli("status", "--json").data["instances"][0]["state"] == "crashed"

    fixed = fixes(mscli("doctor", *INSTANCES, "--json"))["record:rehearsal"]

    assert fixed["done"], fixed
    assert mscli("status", "--json").data["instances"] == []
    assert mscli("logs", "rehearsal").code == 0


def test_a_record_of_an_earlier_boot_is_tidied(doctor: Doctor, left: Leftovers) -> None:
    left.record("old")
    fixed = fixes(doctor(*INSTANCES))["record:old"]
    assert (fixed["done"], "last shutdown" in fixed["what"]) == (True, True)
    assert not (left.records.run_dir("old") / "tmp").exists()
    assert doctor(*INSTANCES).data["fixes"] == []


def test_a_running_instance_is_left_alone(mscli: Mscli) -> None:
    pid = mscli("up", "rehearsal", "--json").data["instance"]["pid"]
    assert mscli("doctor", *INSTANCES, "--json", "--yes").data["fixes"] == []
    assert alive_pid(pid)
    assert mscli("status").code == 0


def test_workers_of_a_killed_leader_are_shown_and_kept_without_consent(doctor: Doctor, left: Leftovers) -> None:
    worker = left.crashed("gone")
    shown = fixes(doctor(*INSTANCES))["orphans:gone:0123"]
    assert not shown["done"]
    assert "--yes" in shown["result"]
    assert f"{worker} (" in shown["shows"][0]
    assert alive_pid(worker)


def test_workers_of_a_killed_leader_are_ended_with_consent(mscli: Mscli, left: Leftovers) -> None:
    worker = left.crashed("gone")
    ended = fixes(mscli("doctor", *INSTANCES, "--json", "--yes"))["orphans:gone:0123"]
    assert ended["done"], ended
    assert not alive_pid(worker)
    assert mscli("status", "--json").data["instances"] == []
    assert mscli("logs", "gone").code == 0


def test_a_process_whose_record_is_gone_is_ended_with_consent(doctor: Doctor, left: Leftovers, tmp_path: Path) -> None:
    child = left.process(IDLE, tmp_path / "log", **{MARK: "lost:4711"})
    assert not fixes(doctor(*INSTANCES))["orphans:lost:4711"]["done"]
    assert child.poll() is None
    assert fixes(doctor(*INSTANCES, "--yes"))["orphans:lost:4711"]["done"]
    assert child.wait(10) != 0


def test_processes_that_are_not_of_this_home_survive(doctor: Doctor, left: Leftovers, tmp_path: Path) -> None:
    unmarked = left.process(IDLE, tmp_path / "log")
    elsewhere = left.process(IDLE, tmp_path / "log2", **{MARK: "other:1", "MSCLI_HOME": str(tmp_path / "other-home")})
    malformed = left.process(IDLE, tmp_path / "log3", **{MARK: "no-instance"})
    left.record("old", dead_identity())

    ran = doctor("--fix", "--yes")

    assert list(fixes(ran)) == ["record:old"]
    assert [child.poll() for child in (unmarked, elsewhere, malformed)] == [None, None, None]


def test_a_worker_that_only_shares_the_session_number_survives(doctor: Doctor, left: Leftovers, tmp_path: Path) -> None:
    other = left.process(IDLE, tmp_path / "log")  # leads a session, and does not write the instance's log
    who = dead_identity()
    left.record("old", type(who)(other.pid, 1, who.boot_id))
    doctor(*INSTANCES, "--yes")
    assert other.poll() is None


def test_processes_of_an_instance_with_an_unreadable_record_survive(
    doctor: Doctor, left: Leftovers, tmp_path: Path
) -> None:
    child = left.process(IDLE, tmp_path / "log", **{MARK: "newer:0123"})
    left.record("newer")
    path = left.records.run_dir("newer") / "record.json"
    path.write_text(path.read_text().replace("mscli-record/1", "mscli-record/9"))
    before = path.read_bytes()

    ran = doctor(*INSTANCES, "--yes")

    assert ran.data["fixes"] == []
    commands = [each["command"] for each in ran.data["commands"]]
    assert f"ps -fp {child.pid}" in commands
    assert f"mv {path} {path}.damaged" in commands
    assert (child.poll(), path.read_bytes()) == (None, before)


def test_the_memory_that_an_orphan_holds_is_shown(
    mscli: Mscli, left: Leftovers, machine: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    child = left.process(IDLE, tmp_path / "log", **{MARK: "lost:4711"})

    def holds(description: dict[str, Any]) -> None:
        description["gpus"][0]["compute"] = [{"pid": child.pid, "memory_mib": 14336}]

    ran = mscli("doctor", *INSTANCES, "--json", "--dry-run", env=machine("rtx4090", holds))
    assert "14,336 MiB of GPU memory" in fixes(ran)["orphans:lost:4711"]["shows"][0]


@pytest.mark.parametrize(("answer", "lives"), [("n\n", True), ("y\n", False)])
def test_on_a_terminal_one_is_asked(
    answer: str, lives: bool, left: Leftovers, user_env: dict[str, str], tmp_path: Path
) -> None:
    child = left.process(IDLE, tmp_path / "log", **{MARK: "lost:4711"})
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "mscli", "doctor", "--fix", "--only", "instances"]
    with subprocess.Popen(argv, env=user_env, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE) as asked:
        os.close(theirs)
        os.write(ours, answer.encode())
        shown = asked.communicate(timeout=60)[0].decode()
    os.close(ours)
    assert f"{child.pid} (" in shown
    assert (child.poll() is None) is lives


def test_leftovers_of_stopped_instances_go_and_logs_stay(doctor: Doctor, left: Leftovers) -> None:
    left.record("ended", stopped_at=2.0)
    failed = left.records.prepare("failed")
    (failed / "log").write_text("why it failed\n")
    (failed / "tmp").mkdir()
    (failed / "tmp" / "socket").touch()
    gone = dead_identity().pid
    (failed / f".record.json.{gone}").write_text("{")
    (failed / f".key.{os.getpid()}").write_text("being written")

    done = fixes(doctor(*INSTANCES))

    assert {name: each["done"] for name, each in done.items()} == {"leftovers:ended": True, "leftovers:failed": True}
    assert sorted(path.name for path in failed.iterdir()) == [f".key.{os.getpid()}", "log"]
    assert (left.records.run_dir("ended") / "record.json").exists()


def test_folders_and_keys_are_closed_to_others(doctor: Doctor, left: Leftovers) -> None:
    left.record("ended", stopped_at=2.0)
    folder = left.records.run_dir("ended")
    (folder / "tmp").rmdir()
    (folder / "key").write_text("secret\n")
    (folder / "key").chmod(0o644)
    folder.chmod(0o755)

    done = fixes(doctor(*INSTANCES))

    assert {name: each["done"] for name, each in done.items()} == {"rights:ended": True, "rights:ended/key": True}
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "key")] == [0o700, 0o600]


OWN_FOLDERS = ("state", "state/instances", "config", "config/profiles", "data", "data/engines")


def test_folders_that_others_may_write_to_are_closed(doctor: Doctor, left: Leftovers, home: Path) -> None:
    for name in OWN_FOLDERS:
        (home / name).mkdir(parents=True, exist_ok=True)
        (home / name).chmod(0o777)  # as under umask 000: another user could plant a record, a profile or a program

    done = fixes(doctor(*INSTANCES))

    assert all(each["done"] for each in done.values())
    assert {name.removeprefix("rights:") for name in done} == {name.rpartition("/")[2] for name in OWN_FOLDERS}
    assert {(home / name).stat().st_mode & 0o777 for name in OWN_FOLDERS} == {0o700}
    assert doctor(*INSTANCES).data["fixes"] == []


def test_what_a_link_points_to_is_left_as_it_is(doctor: Doctor, left: Leftovers, tmp_path: Path) -> None:
    left.record("ended", stopped_at=2.0)
    (left.records.run_dir("ended") / "tmp").rmdir()
    target = tmp_path / "of-somebody"
    target.write_text("x")
    target.chmod(0o666)
    (left.records.run_dir("ended") / "key").symlink_to(target)
    doctor(*INSTANCES)
    assert target.stat().st_mode & 0o777 == 0o666


def test_a_dry_run_changes_nothing(doctor: Doctor, left: Leftovers, home: Path) -> None:
    worker = left.crashed("gone")
    left.record("old")
    profiles = home / "config" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "mine.yaml").write_text("tile: wrong\n")
    before = tree(home)

    ran = doctor("--fix", "--dry-run", "--yes")

    assert [each["done"] for each in ran.data["fixes"]] == [False, False]
    assert tree(home) == before
    assert alive_pid(worker)


def test_a_home_that_is_new_stays_untouched(doctor: Doctor, home: Path) -> None:
    assert doctor("--fix").data["fixes"] == []
    assert not home.exists()


def test_an_unfinished_download_is_only_told(doctor: Doctor, tmp_path: Path) -> None:
    repository, commit = "bartowski/mistralai_Mistral-Small-3.1-24B-Instruct-2503-GGUF", "0" * 40
    file = RemoteFile("mistralai_Mistral-Small-3.1-24B-Instruct-2503-Q4_K_M.gguf", 14_000_000_000, None, "abc0" * 10)
    place = Cache(tmp_path / "hub")
    place.remember(repository, "main", commit, [file])
    data, _ = partial_paths(place.blob(repository, file))
    data.parent.mkdir(parents=True)
    data.write_bytes(b"x" * 5000)

    commands = doctor("--fix", "--yes", "--only", "weights").data["commands"]

    assert [each["command"].split()[:2] for each in commands if "unfinished download" in each["why"]] == [
        ["mscli", "pull"]
    ]
    assert data.exists()


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["--dry-run"], "--fix"),
        (["--yes"], "--fix"),
        (["--fix", "--log", "x"], "--log"),
        (["--fix", "--report", "-"], "--report"),
        (["--fix", "--only", "nothing"], "nothing"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(argv: list[str], word: str, doctor: Doctor) -> None:
    refused = doctor(*argv)
    assert (refused.code, refused.error["code"]) == (2, "usage")
    assert word in refused.error["message"]
