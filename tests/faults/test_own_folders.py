"""What other users, links and odd files in mscli's folders can do: nothing, and they cost only their own instance."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import pytest
from support.faults.user import User, ended

from mscli.instances.records import Records
from mscli.paths import Places

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_folders_are_private_whatever_the_umask(user: User) -> None:
    user.order("ready")
    assert ended(user.begin("up", "rehearsal", prefix=["sh", "-c", 'umask 000; exec "$@"', "sh"])).code == 0
    state = user.home / "state"
    folder = state / "instances" / "rehearsal"
    assert [mode(path) for path in (state, state / "instances", folder, folder / "tmp")] == [0o700] * 4
    assert [mode(folder / name) for name in ("record.json", "log")] == [0o600] * 2


def test_a_folder_that_others_may_write_to_is_closed(user: User) -> None:
    user.order("ready")
    instances = user.home / "state" / "instances"
    instances.mkdir(parents=True)
    instances.chmod(0o777)
    assert user.mscli("up", "rehearsal").code == 0
    assert mode(instances) == 0o700


def planted(user: User, folder_name: str, **changed: object) -> Path:
    """A copy of a running instance's record under another name, as somebody might plant it."""
    user.order("ready")
    if not user.starts():
        assert user.mscli("up", "rehearsal").code == 0
    folder = user.home / "state" / "instances" / folder_name
    folder.mkdir()
    record = json.loads((folder.parent / "rehearsal" / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**record, **changed}))
    return folder


def test_a_record_under_a_strange_name_deletes_nothing(user: User) -> None:
    victim = user.home / "victim"
    planted(user, "evil", name="../../victim", stopped_at=1.0)
    victim.mkdir()
    (victim / "treasure").touch()
    user.mscli("down", "--all", "--purge")
    assert (victim / "treasure").exists()
    (unreadable,) = user.mscli("status", "--all", "--json").data["unreadable"]
    assert unreadable["name"] == "evil"
    assert "it is the record of '../../victim'" in unreadable["reason"]


@pytest.mark.parametrize("name", ["../victim", "a/b", ".hidden", "", "x" * 64])
def test_a_name_that_is_a_path_is_refused(user: User, name: str) -> None:
    for command in (["status", name], ["down", name, "--purge"], ["logs", name], ["env", name], ["restart", name]):
        assert user.mscli(*command).code == 2, command


@needs_root
def test_another_users_record_is_not_believed(user: User) -> None:
    folder = planted(user, "foreign", name="foreign")
    os.chown(folder / "record.json", 12345, 12345)
    (pid,) = user.engines()
    found = user.mscli("status", "--json").data
    assert [item["name"] for item in found["instances"]] == ["rehearsal"]
    assert "another user (uid 12345)" in found["unreadable"][0]["reason"]
    assert user.mscli("down", "foreign").code == 1
    assert user.engines() == [pid]


def as_user(uid: int, look: Callable[[], object]) -> object:
    """What `look` returns in a process of another user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setegid(uid)
        os.seteuid(uid)
        os.write(writing, json.dumps(look()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = json.load(answer)
    os.waitpid(child, 0)
    return said


@needs_root
def test_a_folder_of_root_costs_only_its_instance(user: User) -> None:
    """As after `sudo mscli up`: the user's own instances go on."""
    planted(user, "mine", name="mine")
    folder = planted(user, "roots", name="roots")
    folder.chmod(0o700)
    state = Path(mkdtemp())  # pytest's own folders are closed to other users
    shutil.copytree(user.home / "state", state / "state", symlinks=True)
    for path in (state, *(state / "state").rglob("*")):
        if "roots" not in path.parts:
            os.chown(path, 12345, 12345)
    os.chown(state / "state", 12345, 12345)
    records = Records(Places(state, state / "state", state))

    def look() -> object:
        good, damaged = records.all()
        with records.lock():
            return [[record.name for record in good], [[item.name, item.reason] for item in damaged]]

    assert as_user(12345, look) == [["mine", "rehearsal"], [["roots", "Permission denied"]]]
    shutil.rmtree(state)


def test_a_record_that_is_a_link_a_fifo_or_endless_is_named(user: User, tmp_path: Path) -> None:
    instances = user.home / "state" / "instances"
    for name in ("link", "fifo", "zero", "deep"):
        (instances / name).mkdir(parents=True)
    (tmp_path / "elsewhere.json").write_text("{}")
    (instances / "link" / "record.json").symlink_to(tmp_path / "elsewhere.json")
    os.mkfifo(instances / "fifo" / "record.json")
    (instances / "zero" / "record.json").symlink_to("/dev/zero")
    (instances / "deep" / "record.json").write_text("[" * 100_000)
    (instances / "linked").symlink_to(tmp_path)
    (tmp_path / "record.json").write_text("{}")
    found = user.mscli("status", "--json").data["unreadable"]
    assert {item["name"] for item in found} == {"link", "fifo", "zero", "deep", "linked"}


def test_the_lock_follows_no_link(user: User, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("kept")
    (user.home / "state" / "instances").mkdir(parents=True)
    (user.home / "state" / "instances" / ".lock").symlink_to(target)
    up = user.mscli("up", "rehearsal", "--json")
    assert (up.code, up.error["code"]) == (1, "file")
    assert target.read_text() == "kept"
    assert user.starts() == []


def test_the_environment_of_a_stopped_instance_is_none(user: User) -> None:
    user.order("ready")
    assert user.mscli("up", "rehearsal").code == 0
    assert user.mscli("env", "rehearsal").code == 0
    assert user.mscli("down").code == 0
    env = user.mscli("env", "rehearsal", "--json")
    assert (env.code, env.error["code"]) == (3, "not_running")


def test_a_home_of_a_user_who_is_not_there_is_a_clear_error(user: User) -> None:
    up = user.mscli("up", "rehearsal", "--json", MSCLI_HOME="~nosuchuser/x")
    assert (up.code, up.error["code"]) == (2, "usage")
    assert "~nosuchuser/x" in up.error["message"]
