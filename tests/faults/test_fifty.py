"""Fifty calls of `mscli up` at once, as a script that starts everything in the background makes them."""

from __future__ import annotations

import pytest
from support.faults.user import User, ended

pytestmark = pytest.mark.rounds
CALLS, LONGEST_S = 50, 600.0


def test_fifty_equal_ones_make_one_server(user: User) -> None:
    user.order("ready")
    calls = [user.begin("up", "rehearsal", "--json") for _ in range(CALLS)]
    done = [ended(each, LONGEST_S) for each in calls]
    assert [each.code for each in done] == [0] * CALLS
    assert len(user.starts()) == 1
    assert user.mscli("down", "--all").code == 0
    assert user.engines() == []


def test_fifty_different_ones_make_fifty_servers(user: User) -> None:
    user.order("ready")
    names = [f"number-{each}" for each in range(CALLS)]
    calls = [user.begin("up", "rehearsal", "--name", name, "--json") for name in names]
    done = [ended(each, LONGEST_S) for each in calls]
    assert [each.code for each in done] == [0] * CALLS, [each.out + each.err for each in done if each.code]
    assert len(user.engines()) == CALLS
    shown = {each["name"]: each["state"] for each in user.mscli("status", "--json").data["instances"]}
    assert shown == dict.fromkeys(names, "ready")
    assert user.mscli("down", "--all").code == 0
    assert user.engines() == []
