"""Starts of the real llama.cpp that fail at first: mscli changes what is wrong and ends ready."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.lifecycle.user_profiles import write
from support.run_mscli import Mscli, Ran
from support.tiny_models import TinyModels

LIMIT_KIB = 1_300_000


def flags(data: dict[str, Any]) -> list[str]:
    """The command line that was started."""
    return list(data["plan"]["command"]["argv"])


def changes(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Cause and change of every failed try."""
    return [(heal["cause"], heal["change"]) for heal in data["healed"] if not heal["why"].startswith("remembered: ")]


def test_a_kv_type_that_needs_what_is_switched_off_gives_way_to_another(mscli: Mscli, home: Path) -> None:
    write(home, kv_types="[q8_0, f16]", options="{flash-attn: 'off'}")
    up = mscli("up", "mine", "--json").data
    assert changes(up) == [("cli_flags", "f16 KV")]
    assert up["plan"]["kv_type"] == "f16"
    assert up["instance"]["state"] == "ready"
    assert mscli("up", "mine", "--json").data["already"] is True


def test_a_kv_type_that_was_asked_for_stays_and_the_option_gives_way(mscli: Mscli, home: Path) -> None:
    write(home, kv_types="[q8_0, f16]", options="{flash-attn: 'off'}")
    up = mscli("up", "mine", "--kv", "q8_0", "--json").data
    assert changes(up) == [("cli_flags", "without --flash-attn")]
    assert up["plan"]["kv_type"] == "q8_0"


def test_a_kv_type_of_another_engine_gives_way_to_llama_cpps_own(mscli: Mscli, home: Path) -> None:
    write(home, kv_types="[fp8, q8_0]")
    up = mscli("up", "mine", "--json").data
    assert [change for _, change in changes(up)] == ["q8_0 KV"]
    assert up["plan"]["kv_type"] == "q8_0"
    refused = mscli("up", "mine", "--kv", "fp8", "--replace", "--json")
    assert (refused.code, refused.error["code"]) == (4, "no_fit")
    assert "--kv q4_0" in refused.error["hint"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("{flash_attn: 'on'}", ["--flash-attn", "on"]),
        ("{fa: 1}", ["--flash-attn", "on"]),
        ("{flash-attn: true}", ["--flash-attn", "on"]),
        ("{ubach-size: 256}", ["--ubatch-size", "256"]),
    ],
)
def test_a_flag_spelt_otherwise_is_respelt(mscli: Mscli, home: Path, options: str, wanted: list[str]) -> None:
    write(home, options=options)
    up = mscli("up", "mine", "--json").data
    assert [cause for cause, _ in changes(up)] == ["cli_flags"]
    assert flags(up)[-len(wanted) :] == wanted or not wanted
    assert not any(word.startswith(("--cache_type", "--fa", "--ubach")) for word in flags(up))


def test_a_flag_of_which_nothing_is_known_stops_with_its_name(mscli: Mscli, home: Path) -> None:
    write(home, options="{teleport: 3}")
    failed = mscli("up", "mine", "--json")
    assert (failed.code, failed.error["details"]["cause"]) == (1, "cli_flags")
    assert "--teleport" in failed.error["message"]
    assert "healed" not in failed.error["details"]
    assert mscli("status").code == 3


def limited(env: dict[str, str], *args: str) -> Ran:
    """mscli with less address space than the KV cache of a 24B model takes at its longest."""
    call = ["sh", "-c", f'ulimit -v {LIMIT_KIB}; exec "$@"', "sh", sys.executable, "-m", "mscli", *args, "--json"]
    done = subprocess.run(call, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_context_beyond_the_memory_shrinks_until_it_fits_and_is_remembered(
    mscli: Mscli, home: Path, user_env: dict[str, str], tiny_model: TinyModels
) -> None:
    write(home, model="wide", target=16384)
    folder = str(tiny_model("text", "kv24b").folder)
    up = limited(user_env, "up", "mine", "--weights", folder).data
    assert [cause for cause, _ in changes(up)] == ["oom_kv", "oom_kv"]
    assert up["instance"]["context"] == up["observed"]["context"] == 2048
    assert mscli("status", "--json").data["instances"][0]["context"] == 2048
    mscli("down")
    again = limited(user_env, "up", "mine", "--weights", folder).data
    assert (changes(again), again["instance"]["context"]) == ([], 2048)
    restarted = limited(user_env, "restart", "mine").data
    assert (changes(restarted), restarted["instance"]["context"]) == ([], 2048)


def test_a_context_that_was_asked_for_is_not_shrunk(
    mscli: Mscli, home: Path, user_env: dict[str, str], tiny_model: TinyModels
) -> None:
    write(home, model="wide", target=16384)
    folder = str(tiny_model("text", "kv24b").folder)
    failed = limited(user_env, "up", "mine", "--weights", folder, "--ctx", "16384")
    assert (failed.code, failed.error["details"]["cause"]) == (1, "oom_kv")
    assert "Not tried, because your options rule it out: a context of at most 8,192 tokens" in failed.error["hint"]
    assert "healed" not in failed.error["details"]
    assert mscli("status").code == 3


def test_without_healing_the_first_failure_is_told_and_memory_ignored(mscli: Mscli, home: Path) -> None:
    write(home, options="{flash_attn: 'on'}")
    assert mscli("up", "mine", "--json").code == 0
    mscli("down")
    failed = mscli("up", "mine", "--no-heal", "--json")
    assert (failed.code, failed.error["details"]["cause"]) == (1, "cli_flags")
    again = mscli("up", "mine", "--json").data
    assert changes(again) == [], "what was remembered must outlast a start without it that failed"


def test_each_step_is_said(mscli: Mscli, home: Path) -> None:
    write(home, options="{flash_attn: 'on'}")
    done = mscli("up", "mine")
    assert "retry    1 of 3: without --flash_attn, --flash-attn on" in done.err
    assert "does not know the flag --flash_attn" in done.err
    assert "adjusted so that it starts: without --flash_attn, --flash-attn on" in done.out
    mscli("down")
    assert "with earlier adjustments: without --flash_attn, --flash-attn on" in mscli("up", "mine").err
    mscli("down")
    shown = mscli("up", "mine", "--dry-run")
    assert "--flash-attn on" in shown.out
    assert "--flash_attn" not in shown.out.split("  command\n")[1]


def test_steps_are_events_for_scripts(mscli: Mscli, home: Path) -> None:
    write(home, options="{flash_attn: 'on'}")
    events = [json.loads(line) for line in mscli("up", "mine", "--json=stream").out.splitlines()]
    heals = [event for event in events if event.get("event") == "heal"]
    assert [(heal["number"], heal["cause"], heal["change"]) for heal in heals] == [
        (1, "cli_flags", "without --flash_attn, --flash-attn on")
    ]
    assert events[-1]["data"]["healed"] == [{key: heals[0][key] for key in ("cause", "change", "why")}]


def test_a_profile_that_was_edited_starts_as_it_is_written(mscli: Mscli, home: Path) -> None:
    write(home, kv_types="[q8_0, f16]", options="{flash-attn: 'off'}")
    mscli("up", "mine")
    mscli("down")
    write(home, kv_types="[q8_0, f16]")
    up = mscli("up", "mine", "--json").data
    assert (changes(up), up["plan"]["kv_type"]) == ([], "q8_0")


LATE = """\
#!{python}
# The real server, which waits before its first start until somebody else has taken its port.
import os, sys
port = sys.argv[sys.argv.index("--port") + 1] if "--port" in sys.argv else None
if port and os.path.exists("{asked}"):
    with open("{asked}", "w") as asked:
        asked.write(port)
    with open("{taken}") as taken:
        taken.read()
    if {silent}:
        sys.exit(1)
os.execv("{python}", ["{python}", "-m", "mscli.engines.llamacpp.embedded", *sys.argv[1:]])
"""


@pytest.mark.parametrize("silent", [False, True], ids=["it says so", "its last lines are lost"])
def test_a_port_taken_between_plan_and_start_is_given_up_for_another(
    mscli: Mscli, home: Path, user_env: dict[str, str], tmp_path: Path, silent: bool
) -> None:
    asked, taken, server = tmp_path / "asked", tmp_path / "taken", tmp_path / "bin" / "llama-server"
    os.mkfifo(asked)
    os.mkfifo(taken)
    server.parent.mkdir()
    server.write_text(LATE.format(python=sys.executable, asked=asked, taken=taken, silent=silent))
    server.chmod(server.stat().st_mode | stat.S_IXUSR)
    env = {**user_env, "PATH": f"{server.parent}:{user_env['PATH']}"}
    call = [sys.executable, "-m", "mscli", "up", "rehearsal", "--json"]
    with subprocess.Popen(call, env=env, stdout=subprocess.PIPE, text=True) as up:
        number = int(asked.read_text())
        with socket.create_server(("127.0.0.1", number)):
            asked.unlink()
            taken.write_text("go on")
            out, _ = up.communicate(timeout=60)
    done = Ran(up.returncode, out, "").data
    assert changes(done) == [("port", "another port")]
    assert done["instance"]["port"] != number
    assert mscli("chat", "hello").code == 0
