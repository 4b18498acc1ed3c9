"""`mscli status` in full and while it is watched; an instance that died is found and explained without its name."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.instances.instance_records import PLAN, write_record
from support.run_mscli import Mscli
from support.terminal import on_a_terminal

from mscli.cli.main import main
from mscli.instances.log import last_request
from mscli.instances.process import Identity, boot_id, identify
from mscli.instances.records import End, Records, Taken
from mscli.paths import places

DEAD = Identity(2**22 - 7, 1, boot_id())


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Records:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    return Records(places())


def test_what_a_start_took_is_kept_and_shown(mscli: Mscli) -> None:
    mscli("up", "rehearsal")
    mscli("chat", "hello")
    shown = mscli("status").out
    assert "4,096 tokens, f16 KV cache" in shown
    assert re.search(r"last request  \d+ s ago", shown)
    assert mscli("status", "--json").data["instances"][0]["served_context"] == 4096


def test_memory_and_context_are_those_in_force(records: Records, capsys: pytest.CaptureFixture[str]) -> None:
    taken = Taken(2048, {"0": 13 * 2**30, "1": 12 * 2**30}, 0.75)
    write_record(records, "mine", DEAD, "none", plan=PLAN, taken=taken)
    main(["status"])
    shown = capsys.readouterr().out
    assert "2,048 tokens (4,096 planned)" in shown
    assert "13.0 GiB on GPU 0, 12.0 GiB on GPU 1, 75% of the model on the GPU" in shown


@pytest.mark.parametrize(
    "words", [["chat", "hi"], ["check"], ["env"], ["logs"], ["down"], ["restart"], ["launch", "llm"]], ids=" ".join
)
def test_where_several_run_the_hint_is_a_command_that_names_one(
    words: list[str], records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as engine:
        for name in ("one", "two"):
            write_record(records, name, identify(engine.pid), "none")
        code = main(words)
        engine.kill()
    assert code == 2
    given = {"chat": ["chat", "-i"]}.get(words[0], words)
    assert capsys.readouterr().err.splitlines() == [
        "error: several instances are running: one, two", f"Name one: mscli {' '.join(given)} one"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "hint"),
    [("logs", "Name one: mscli logs one"), ("restart", "Name one: mscli restart one")]
    + [(verb, "To start it again: mscli restart one") for verb in ("chat", "check", "env")],
)
def test_where_all_are_stopped_the_hint_is_about_them(
    verb: str, hint: str, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(records, "one", DEAD, "none", stopped_at=1.0)
    assert main([verb, *(["hi"] if verb == "chat" else [])]) == 3
    assert capsys.readouterr().err.splitlines() == ["error: nothing is running", f"Stopped: one. {hint}"]


LOGS = {
    "llama.cpp": ("0.01.610.328 I slot      release: id  0 | task 0 | stop processing: n_tokens = 31\n", 1001.0),
    "vLLM": (
        "INFO 01-01 00:20:00 [loggers.py:1] Engine 000: Avg prompt throughput\n"
        'INFO:     127.0.0.1:5 - "POST /v1/chat/completions HTTP/1.1" 200 OK\n',
        time.mktime((1970, 1, 1, 0, 20, 0, 0, 0, -1)),
    ),
    "Ollama": (
        '[GIN] 1970/01/01 - 00:20:00 | 200 | 1.2s | 127.0.0.1 | POST     "/api/chat"\n',
        time.mktime((1970, 1, 1, 0, 20, 0, 0, 0, -1)),
    ),
    "one that nobody asked": ('0.00.164.447 I srv  init: listening\nINFO: "GET /health HTTP/1.1" 200 OK\n', None),
}


@pytest.mark.parametrize("engine", LOGS)
def test_the_last_request_is_read_from_the_log(engine: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOGS[engine][0])
    assert last_request(tmp_path / "log", 1000.0) == LOGS[engine][1]


@pytest.mark.parametrize("width", [80, 40])
def test_watching_redraws_and_leaves_the_terminal_as_it_was(
    width: int, records: Records, user_env: dict[str, str]
) -> None:
    write_record(records, "mine", DEAD, "none", plan=PLAN)
    with on_a_terminal("status", "--watch", env={**user_env, **os.environ}, width=width) as terminal:
        terminal.read_until(lambda: terminal.raw.count("Ctrl-C to stop") >= 2, "two frames")
        terminal.child.send_signal(signal.SIGINT)
        assert terminal.ended() == 3  # nothing runs
        shown = terminal.raw
    assert shown.startswith("\x1b[?1049h\x1b[?25l")
    assert shown.rstrip().endswith("\x1b[?25h\x1b[?1049l")
    frame = shown.split("\x1b[H\x1b[J")[1]
    assert "mine" in frame
    assert "Traceback" not in shown


def test_watching_needs_a_terminal(records: Records, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--watch", "--json"]) == 2
    assert "--json" in json.loads(capsys.readouterr().out)["error"]["hint"]


def kernel_says(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `dmesg` that prints the line."""
    (folder / "bin").mkdir()
    (folder / "bin" / "dmesg").write_text(f"#!/bin/sh\necho '{line}'\n")
    (folder / "bin" / "dmesg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


KILLS = {
    "lack of memory": f"Out of memory: Killed process {DEAD.pid} (llama-server) total-vm:1kB",
    "a segfault": f"llama-server[{DEAD.pid}]: segfault at 0 ip 00 sp 00 error 4 in libggml.so",
}


@pytest.mark.parametrize("kind", KILLS)
def test_a_kill_is_told_in_the_kernels_words(
    kind: str, records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(records, "mine", DEAD, "none", plan=PLAN)
    kernel_says(f"[  12.345678] {KILLS[kind]}", tmp_path, monkeypatch)
    assert main(["doctor", "--log"]) == 5
    shown = " ".join(capsys.readouterr().out.split())
    assert KILLS[kind] in shown
    assert "mscli restart mine" in shown
    assert main(["doctor", "--log", "--json"]) == 5
    assert KILLS[kind] in json.loads(capsys.readouterr().out)["data"]["end"]


def test_the_signal_that_a_companion_saw_is_named(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    end = End(1.0, "exit", -signal.SIGABRT, True, "unknown", "it was aborted", (), None)
    write_record(records, "mine", DEAD, "none", plan=PLAN, last_end=end)
    kernel_says("", tmp_path, monkeypatch)
    assert main(["doctor", "--log"]) == 5
    assert "mine (PID 4194297) was killed by SIGABRT" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("status", "says"), [(1, "ended with status 1, and its log shows no cause"), (0, "perhaps a signal killed it")]
)
def test_an_end_that_no_cause_explains_is_shown_with_the_last_errors(
    status: int, says: str, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    end = End(1.0, "exit", status, True, "unknown", "it ended", (), None) if status else None
    record = write_record(records, "mine", DEAD, "none", plan=PLAN, last_end=end)
    record.log.write_text("loading\nAssertionError: the moon is not full\n")
    assert main(["doctor", "--log"]) == 5
    shown = " ".join(capsys.readouterr().out.split())
    assert says in shown
    assert "| AssertionError: the moon is not full" in shown


@pytest.mark.parametrize("command", [["logs"], ["doctor", "--log"], ["down"]])
def test_the_one_that_crashed_is_found_without_its_name(
    command: list[str], records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    record = write_record(records, "mine", DEAD, "none", plan=PLAN)
    record.log.write_text("the engine's last words\n")
    main([*command, "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"], answer
    assert "mine" in json.dumps(answer) or "last words" in json.dumps(answer)
