"""An engine that is stopped in the middle of its life keeps every connection open, and answers none."""

from __future__ import annotations

import os
import signal

import pytest
from support.faults.user import User, ended

pytestmark = pytest.mark.rounds  # each waits a quarter of a minute


def test_chat_and_check_of_a_frozen_engine_end_and_say_so(user: User) -> None:
    user.order("ready")
    assert user.mscli("up", "rehearsal").code == 0
    os.kill(user.engines()[0], signal.SIGSTOP)
    chat, check = user.begin("chat", "hello"), user.begin("check", "--json")
    said, checked = ended(chat), ended(check)
    assert said.code == 1, said.err
    assert "rehearsal does not respond: its health check went unanswered for 15 s" in said.err
    assert "mscli restart rehearsal" in said.err
    assert checked.code == 5, checked.err
    results = {each["name"]: (each["status"], each["seen"]) for each in checked.data["checks"]}
    assert results["chat"][0] == "fail"
    assert "does not respond" in results["chat"][1]
    assert all(status == "skipped" for name, (status, _) in results.items() if name != "chat"), results
