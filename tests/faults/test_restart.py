"""`mscli restart` refuses what cannot start again before it stops what runs."""

from __future__ import annotations

from pathlib import Path

from support.faults.user import User

PROFILE = """\
title: A profile of the user's own
engine: llama.cpp
model: rehearsal
variant: q8_0
device: cpu
context: {floor: 1024, target: 4096}
kv_types: [f16]
images: 0
automatic: false
"""


def own_profile(user: User) -> Path:
    path = user.home / "config" / "profiles" / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROFILE)
    user.order("ready")
    return path


def test_a_broken_profile_is_refused_while_the_instance_runs_on(user: User) -> None:
    path = own_profile(user)
    up = user.mscli("up", "mine", "--json").data
    path.write_text(PROFILE.replace("kv_types", "kv_tips"))
    restart = user.mscli("restart", "mine", "--json")
    assert (restart.code, restart.error["code"]) == (1, "profile_invalid")
    (shown,) = user.mscli("status", "--json").data["instances"]
    assert (shown["state"], shown["pid"]) == ("ready", up["instance"]["pid"])
    path.write_text(PROFILE)
    again = user.mscli("restart", "mine", "--json").data
    assert again["instance"]["port"] == up["instance"]["port"]
    assert again["instance"]["pid"] != up["instance"]["pid"]


def test_an_engine_that_is_gone_is_noticed_before_the_stop(user: User) -> None:
    own_profile(user)
    up = user.mscli("up", "mine", "--json").data
    program = Path(up["plan"]["command"]["argv"][0])
    program.write_text("#!/bin/sh\nexit 127\n")
    restart = user.mscli("restart", "mine", "--json")
    assert restart.code == 1
    (shown,) = user.mscli("status", "--json").data["instances"]
    assert (shown["state"], shown["pid"]) == ("ready", up["instance"]["pid"])
