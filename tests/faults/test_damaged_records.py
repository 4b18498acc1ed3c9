"""Instances whose record cannot be read: named, never lost, stopped on demand; nothing outside their folder touched."""

from __future__ import annotations

from support.faults.user import User


def damaged(user: User) -> int:
    """The pid of an engine whose record has been damaged."""
    user.order("ready")
    assert user.mscli("up", "rehearsal").code == 0
    (user.home / "state" / "instances" / "rehearsal" / "record.json").write_text('{"schema": "mscli-rec')
    (pid,) = user.engines()
    return pid


def test_down_names_what_it_cannot_stop(user: User) -> None:
    pid = damaged(user)
    for args in ([], ["--all"], ["rehearsal"]):
        down = user.mscli("down", *args, "--json")
        assert (down.code, down.error["code"]) == (1, "record_unreadable"), args
        assert "mscli down rehearsal --force" in down.error["hint"]
    assert user.engines() == [pid]


def test_down_stops_the_others_all_the_same(user: User) -> None:
    pid = damaged(user)
    assert user.mscli("up", "rehearsal", "--name", "other").code == 0
    assert user.mscli("down", "--all").code == 1
    assert user.engines() == [pid]


def test_down_by_force_goes_by_the_mark(user: User) -> None:
    damaged(user)
    (stopped,) = user.mscli("down", "rehearsal", "--force", "--json").data["stopped"]
    assert (stopped["name"], stopped["signal"], stopped["survivors"]) == ("rehearsal", "SIGINT", [])
    assert user.engines() == []
    assert user.mscli("down", "--all", "--force").code == 0
