"""A start that somebody kills says nothing about the plan; what had to be changed once is not kept for ever."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.faults.user import User, ended
from support.lifecycle.user_profiles import write
from support.run_mscli import Mscli


def test_a_stray_kill_is_tried_again_as_it_was_and_not_remembered(user: User) -> None:
    waiting = user.begin("up", "rehearsal", "--json")
    user.begun()
    os.kill(user.starts()[0], signal.SIGKILL)
    user.begun(2)
    user.order("ready")
    up = ended(waiting).data
    assert [(heal["cause"], heal["change"]) for heal in up["healed"]] == [("engine_crashed", "the same start again")]
    assert up["instance"]["context"] == 4096
    assert not (user.home / "state" / "healed.jsonl").exists()


def test_a_second_stray_kill_ends_the_tries(user: User) -> None:
    waiting = user.begin("up", "rehearsal", "--json")
    for number in (1, 2):
        user.begun(number)
        for pid in user.engines():
            os.kill(pid, signal.SIGKILL)
    up = ended(waiting)
    assert (up.code, up.error["details"]["cause"]) == (1, "engine_crashed")
    assert "not by the kernel for lack of memory" in up.error["message"]
    assert len(user.starts()) == 2


def healed_entries(home: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (home / "state" / "healed.jsonl").read_text().splitlines()]


def test_what_is_remembered_is_said_at_each_start_and_tried_without_at_last(mscli: Mscli, home: Path) -> None:
    write(home, kv_types="[q8_0, f16]", options="{flash-attn: 'off'}")
    assert mscli("up", "mine", "--json").data["healed"][0]["cause"] == "cli_flags"
    mscli("down")
    (said,) = mscli("up", "mine", "--json").data["healed"]
    assert (said["cause"], said["change"]) == ("cli_flags", "f16 KV")
    assert said["why"].startswith("remembered: ")
    mscli("down")
    assert [entry["starts"] for entry in healed_entries(home)] == [0, 1]
    due = {**healed_entries(home)[-1], "starts": 10}
    (home / "state" / "healed.jsonl").write_text(json.dumps(due) + "\n")
    up = mscli("up", "mine", "--json").data
    assert [(heal["cause"], heal["change"]) for heal in up["healed"]] == [("cli_flags", "f16 KV")]
    mscli("down")
    assert healed_entries(home)[-1]["starts"] == 0, "it is needed still"
    (home / "state" / "healed.jsonl").write_text(json.dumps(due) + "\n")
    write(home, kv_types="[q8_0, f16]", options="{flash-attn: 'on'}")  # another profile: nothing of it holds
    assert mscli("up", "mine", "--json").data["healed"] == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["a folder", "a pipe"])
def test_a_state_that_cannot_be_written_is_a_warning(user: User, make: Callable[[Path], None]) -> None:
    user.order("ready")
    (user.home / "state").mkdir(parents=True)
    for name in ("starts.jsonl", "observations.jsonl", "healed.jsonl"):
        make(user.home / "state" / name)
    up = user.mscli("up", "rehearsal", "--json")
    assert up.code == 0
    assert "starts.jsonl" in up.data["warnings"][0]


def test_a_start_that_failed_is_explained_by_its_own_part_of_the_log(user: User) -> None:
    for said in ("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000.00 MiB on device 0: cudaMalloc failed: "
                 "out of memory", "error: invalid argument: --teleport"):  # fmt: skip
        user.order("say", said)
        user.order("die", "1")
        assert user.mscli("up", "rehearsal", "--no-heal", "--json").code == 1
    found = user.mscli("doctor", "--log", "rehearsal", "--json").data["causes"]
    assert [cause["code"] for cause in found] == ["cli_flags"]
    checked = user.mscli("doctor", "--only", "instances", "--json").out
    assert "cli_flags" in checked
    assert "oom_" not in checked
