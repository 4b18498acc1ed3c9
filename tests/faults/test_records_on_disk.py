"""What becomes of an engine whose record cannot be written, and of records that change while somebody works on them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from support.faults.user import User, ended
from support.run_mscli import Ran

from mscli.lifecycle.shutdown import purge, stop

_LIMIT = (
    "import os, resource, sys; n = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)); "
    "os.environ['PYTHONDONTWRITEBYTECODE'] = '1'"
)  # Python leaves half a .pyc where it cannot write the whole
LIMITED = f"{_LIMIT}; os.execv(sys.argv[2], sys.argv[2:])"


def limited(user: User, size_bytes: int, *args: str) -> Ran:
    """mscli where no file can grow beyond a size, as on a full disk."""
    return ended(user.begin(*args, prefix=[sys.executable, "-c", LIMITED, str(size_bytes)]))


def left_files(user: User) -> list[str]:
    """Files written by half."""
    return [str(path) for path in (user.home / "state").rglob(".*") if path.name != ".lock"]


def test_without_room_for_its_record_no_engine_is_started(user: User) -> None:
    up = limited(user, 200, "up", "rehearsal", "--json")
    assert (up.code, up.error["code"]) == (1, "disk_full")
    assert user.starts() == []
    assert left_files(user) == []
    assert user.mscli("status").code == 3


def test_an_engine_whose_record_cannot_be_completed_is_ended(user: User) -> None:
    user.order("ready")
    assert user.mscli("up", "rehearsal").code == 0
    size = (user.home / "state" / "instances" / "rehearsal" / "record.json").stat().st_size
    assert user.mscli("down").code == 0
    up = limited(user, size - 40, "up", "rehearsal", "--json")  # room for the record without the engine's pid
    assert (up.code, up.error["code"]) == (1, "disk_full")
    assert len(user.starts()) == 2 or len(user.starts()) == 1
    assert user.engines() == []
    assert left_files(user) == []
    assert user.mscli("status").code == 3


def test_an_engine_that_is_ready_is_reported_where_only_what_it_took_cannot_be_saved(user: User) -> None:
    user.order("ready")
    asked = ("up", "rehearsal", "--template", "gguf")  # without a template the record is the largest file
    assert user.mscli(*asked).code == 0
    with_all = user.home / "state" / "instances" / "rehearsal" / "record.json"
    told = json.loads(with_all.read_text())
    size = len(json.dumps({**told, "taken": None})) + 24  # other pids and times may have more digits
    assert user.mscli("down").code == 0
    up = limited(user, size, *asked, "--json")
    assert up.code == 0, up.error
    (warning,) = up.data["warnings"]
    assert "record.json cannot be written" in warning
    (shown,) = user.mscli("status", "--json").data["instances"]
    assert shown["state"] == "ready"
    assert left_files(user) == []


def test_down_on_a_full_disk_stops_and_is_believed(user: User) -> None:
    user.order("ready")
    assert user.mscli("up", "rehearsal").code == 0
    down = limited(user, 0, "down", "--json")
    assert (down.code, user.engines()) == (0, [])
    (shown,) = user.mscli("status", "--all", "--json").data["instances"]
    assert shown["state"] == "stopped"
    assert left_files(user) == []
    assert not (user.home / "state" / "instances" / "rehearsal" / "tmp").exists()
    assert user.mscli("up", "rehearsal").code == 0


def test_down_removes_the_half_record_of_an_mscli_that_was_killed_while_it_wrote(user: User) -> None:
    user.order("ready")
    assert user.mscli("up", "rehearsal").code == 0
    (user.home / "state" / "instances" / "rehearsal" / ".record.json.4242").write_text('{"schema": "mscli-rec')
    assert user.mscli("down").code == 0
    assert left_files(user) == []


@pytest.mark.parametrize("which", [("rehearsal",), ("--all",), ()], ids=["by name", "all", "the only one"])
def test_down_tidies_after_an_mscli_that_was_killed_between_the_record_and_its_last_files(
    user: User, which: tuple[str, ...]
) -> None:
    user.order("ready")
    user.mscli("up", "rehearsal")
    user.mscli("down", "rehearsal")
    folder = user.home / "state" / "instances" / "rehearsal"
    (folder / "stopping").touch()
    (folder / "ready").touch()
    (folder / "tmp").mkdir()
    assert user.mscli("down", *which).code == 0
    assert {"stopping", "ready", "tmp"}.isdisjoint(path.name for path in folder.iterdir())
    assert user.mscli("status").code == 3


def test_stopping_keeps_the_record_of_a_start_that_came_meanwhile(user: User) -> None:
    user.order("ready")
    assert user.mscli("up", "rehearsal").code == 0
    old = user.record()
    new = replace(old, mark="rehearsal:0123456789abcdef")
    stop(old, user.records, lambda _: user.records.save(new))  # said before each signal
    assert user.engines() == []
    assert user.record() == new


def test_purging_keeps_the_folder_of_a_start_that_came_meanwhile(user: User) -> None:
    user.order("ready")
    assert user.mscli("up", "rehearsal").code == 0
    assert user.mscli("down").code == 0
    old = user.record()
    assert user.mscli("up", "rehearsal").code == 0
    purge(old, user.records)
    (shown,) = user.mscli("status", "--json").data["instances"]
    assert shown["state"] == "ready"


def test_an_mscli_killed_before_its_record_was_complete_loses_no_engine(user: User) -> None:
    user.order("ready")
    assert user.mscli("up", "rehearsal").code == 0
    (pid,) = user.engines()
    path = user.home / "state" / "instances" / "rehearsal" / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "identity": None}))
    (shown,) = (
        user.mscli("status", "--json").data["instances"] or user.mscli("status", "--all", "--json").data["instances"]
    )
    assert (shown["state"], shown["orphans"]) == ("crashed", [pid])
    assert user.mscli("down", "rehearsal").code == 0
    assert user.engines() == []
