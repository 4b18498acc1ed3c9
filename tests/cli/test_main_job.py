"""The main job, whole, on the real llama.cpp: up, chat, check, stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.picture import png, png_file
from support.run_mscli import Mscli
from support.weather import TOOL

from mscli.instances import process
from mscli.lifecycle import port


def post(url: str, body: dict[str, Any], key: str | None = None) -> str:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def test_up_chat_status_down(mscli: Mscli) -> None:
    up = mscli("up", "rehearsal", "--json")
    assert (up.code, up.err) == (0, "")
    instance = up.data["instance"]
    assert instance["state"] == "ready"
    assert up.data["plan"]["profile"] == "rehearsal"

    chat = mscli("chat", "hello")
    assert "scripted stand-in" in chat.out

    status = mscli("status", "--json")
    assert status.code == 0
    assert status.data["instances"] == [instance]

    down = mscli("down")
    assert (down.code, "port free" in down.out) == (0, True)
    assert process.stat(instance["pid"]) is None or process.stat(instance["pid"]).state == "Z"
    assert port.free("127.0.0.1", instance["port"])
    assert mscli("status").code == 3
    assert mscli("down").code == 0


def test_clients_get_a_stream_a_tool_call_and_an_answer_about_an_image(mscli: Mscli) -> None:
    mscli("up", "rehearsal")
    env = mscli("env", "--json").data
    url, model = env["OPENAI_BASE_URL"], env["MSCLI_MODEL"]
    ask = {"model": model, "messages": [{"role": "user", "content": "hello"}]}

    streamed = post(url, {**ask, "stream": True})
    pieces = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    assert len(pieces) > 5
    assert streamed.rstrip().endswith("data: [DONE]")

    called = json.loads(post(url, {**ask, "tools": [TOOL]}))["choices"][0]["message"]["tool_calls"][0]["function"]
    assert (called["name"], json.loads(called["arguments"])) == ("get_weather", {"city": "Paris"})

    image = {"type": "image_url", "image_url": {"url": png()}}
    content = [{"type": "text", "text": "What is this?"}, image]
    seen = json.loads(post(url, {"model": model, "messages": [{"role": "user", "content": content}]}))
    assert "image" in seen["choices"][0]["message"]["content"]


def test_the_same_up_again_reports_what_runs(mscli: Mscli) -> None:
    first = mscli("up", "rehearsal", "--json").data
    again = mscli("up", "rehearsal", "--json").data
    assert again["already"] is True
    assert again["instance"]["pid"] == first["instance"]["pid"]


def test_another_plan_under_the_same_name_needs_replace(mscli: Mscli) -> None:
    first = mscli("up", "rehearsal", "--json").data["instance"]
    refused = mscli("up", "rehearsal", "--ctx", "2048", "--json")
    assert (refused.code, refused.error["code"]) == (1, "instance_exists")
    assert "--replace" in refused.error["hint"]
    replaced = mscli("up", "rehearsal", "--ctx", "2048", "--replace", "--json").data["instance"]
    assert replaced["context"] == 2048
    assert replaced["pid"] != first["pid"]
    assert process.members(process.Identity(first["pid"], 0, process.boot_id()), "none") == ()


def test_named_instances_run_side_by_side(mscli: Mscli) -> None:
    one = mscli("up", "rehearsal", "--name", "one", "--json").data["instance"]
    told = mscli("up", "rehearsal", "--name", "two").out
    assert all(word in told for word in ('mscli chat "hello" -i two', "mscli logs -f two", "mscli down two")), told
    two = mscli("status", "two", "--json").data["instances"][0]
    assert one["port"] != two["port"]
    which = mscli("chat", "hello", "--json")
    assert (which.code, which.error["code"]) == (2, "usage")
    assert "one, two" in which.error["message"]
    assert mscli("chat", "hello", "--name", "two").code == 0
    assert mscli("down", "one").code == 0
    assert [item["name"] for item in mscli("status", "--json").data["instances"]] == ["two"]


def test_a_port_asked_for_and_taken_names_its_owner(mscli: Mscli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        refused = mscli("up", "rehearsal", "--port", str(number), "--json")
    assert (refused.code, refused.error["code"]) == (1, "port_taken")
    assert refused.error["details"] == {"port": number, "owner_pid": os.getpid()}
    assert f"{os.getpid()} (" in refused.error["message"]


def test_a_port_of_another_instance_names_it(mscli: Mscli) -> None:
    port = mscli("up", "rehearsal", "--json").data["instance"]["port"]
    refused = mscli("up", "rehearsal", "--name", "two", "--port", str(port), "--json")
    assert refused.error["code"] == "port_taken"
    assert refused.error["message"].endswith("is taken by the instance 'rehearsal'")
    assert "mscli down rehearsal" in refused.error["hint"]
    assert mscli("down").code == 0


def test_an_address_of_another_machine_is_refused_before_anything_starts(mscli: Mscli, home: Path) -> None:
    folder = home / "state" / "instances"
    refused = mscli("up", "rehearsal", "--host", "192.0.2.1", "--json")
    assert (refused.code, refused.error["code"]) == (2, "usage")
    assert not folder.exists() or not any(folder.glob("*/record.json"))


def test_a_crashed_instance_is_seen_and_can_be_started_again(mscli: Mscli) -> None:
    first = mscli("up", "rehearsal", "--json").data["instance"]
    os.kill(first["pid"], signal.SIGKILL)
    assert process.wait_death(first["pid"], 10)
    status = mscli("status", "--json")
    assert status.code == 3
    assert status.data["instances"][0]["state"] == "crashed"
    again = mscli("up", "rehearsal", "--json").data
    assert again["already"] is False
    assert again["instance"]["state"] == "ready"


def test_a_frozen_server_is_unresponsive_and_stops_all_the_same(mscli: Mscli) -> None:
    instance = mscli("up", "rehearsal", "--json").data["instance"]
    os.kill(instance["pid"], signal.SIGSTOP)
    assert mscli("status", "--json").data["instances"][0]["state"] == "unresponsive"
    down = mscli("down", "--json")
    assert down.data["stopped"][0]["survivors"] == []
    assert down.data["stopped"][0]["signal"] == "SIGTERM"


def test_no_wait_returns_at_once_and_status_tells_when_it_is_ready(mscli: Mscli) -> None:
    up = mscli("up", "rehearsal", "--no-wait", "--json").data["instance"]
    assert up["state"] in ("starting", "ready")
    for _ in range(100):
        if mscli("status", "--json").data["instances"][0]["state"] == "ready":
            return
    pytest.fail("the instance never became ready: " + mscli("logs", "rehearsal").out)


def test_restart_keeps_port_and_wishes(mscli: Mscli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # a port that no other test will choose
        number = server.getsockname()[1]
    first = mscli("up", "rehearsal", "--ctx", "2048", "--port", str(number), "--json").data["instance"]
    again = mscli("restart", "--json").data["instance"]
    assert (again["port"], again["context"]) == (first["port"], 2048)
    assert again["pid"] != first["pid"]
    mscli("down")
    assert mscli("restart", "rehearsal", "--json").data["instance"]["port"] == first["port"]
    assert mscli("up", "rehearsal", "--ctx", "2048", "--json").data["already"] is True
    assert first["port"] == number


def test_an_api_key_is_required_and_kept_from_argv_and_records(mscli: Mscli, home: Path) -> None:
    key = "sk-very-secret-4711"
    up = mscli("up", "rehearsal", "--json", env={"MSCLI_API_KEY": key}).data
    command = Path(f"/proc/{up['instance']['pid']}/cmdline").read_bytes()
    assert key.encode() not in command
    assert key not in json.dumps(up)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        post(up["instance"]["base_url"], {"messages": [{"role": "user", "content": "hi"}]})
    assert mscli("chat", "hello").code == 0
    assert mscli("env", "--json").data["OPENAI_API_KEY"] == key
    holders = [path for path in home.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert [path.name for path in holders] == ["key"]
    assert holders[0].stat().st_mode & 0o777 == 0o600


def test_an_open_address_gets_a_key_unasked(mscli: Mscli) -> None:
    up = mscli("up", "rehearsal", "--host", "0.0.0.0", "--json").data
    assert "can be reached from other machines" in up["warnings"][0]
    assert len(mscli("env", "--json").data["OPENAI_API_KEY"]) > 20
    assert mscli("chat", "hello").code == 0


def test_env_can_be_evaluated(mscli: Mscli) -> None:
    mscli("up", "rehearsal")
    assert mscli("env").out.startswith("export OPENAI_BASE_URL=http://127.0.0.1:")


def test_logs_follow_until_the_engine_ends(mscli: Mscli) -> None:
    mscli("up", "rehearsal")
    assert len(mscli("logs", "-n", "3").out.splitlines()) == 3
    assert len(mscli("logs", "--json", "-n", "5").data["lines"]) == 5
    mscli("down")
    followed = mscli("logs", "rehearsal", "-f", "-n", "1")
    assert followed.code == 0


def test_down_purge_leaves_nothing_but_how_long_it_took(mscli: Mscli, home: Path) -> None:
    mscli("up", "rehearsal")
    mscli("down", "--purge")
    kept = {path for path in home.rglob("*") if path.is_file() and path.name != ".lock"}
    assert {path.name for path in kept if path.parent.name != "parsed"} == {"starts.jsonl"}


def test_chat_reads_a_pipe_only_without_a_prompt(mscli: Mscli, tmp_path: Path) -> None:
    mscli("up", "rehearsal")
    assert "scripted" in mscli("chat", stdin="hello\n").out
    assert "scripted" in mscli("chat", "-", stdin="hello\n").out
    picture = tmp_path / "picture.png"
    picture.write_bytes(png_file())
    assert "image" in mscli("chat", "--image", str(picture), "What is this?").out
    (tmp_path / "not.png").write_text("text")
    wrong = mscli("chat", "--image", str(tmp_path / "not.png"), "?", "--json")
    assert (wrong.code, wrong.error["code"]) == (1, "file")


def test_too_long_a_prompt_is_told_in_the_servers_words(mscli: Mscli) -> None:
    mscli("up", "rehearsal", "--ctx", "1024")
    refused = mscli("chat", "word " * 3000, "--json")
    assert (refused.code, refused.error["code"]) == (1, "request_failed")
    assert "context" in refused.error["message"]


def test_the_self_test_asks_for_everything_that_is_promised(mscli: Mscli) -> None:
    mscli("up", "rehearsal")
    done = mscli("check", "--json")
    assert done.code == 0, done.out
    checks = {item["name"]: item["status"] for item in done.data["checks"]}
    assert checks == {"chat": "ok", "tools": "ok", "image": "ok", "reasoning": "skipped"}
    assert "get_weather" in mscli("check").out


def test_nobody_else_is_asked_when_the_instance_has_died(mscli: Mscli) -> None:
    pid = mscli("up", "rehearsal", "--json").data["instance"]["pid"]
    os.kill(pid, signal.SIGKILL)
    assert process.wait_death(pid, 10)
    for verb in (("check", "rehearsal"), ("chat", "hello", "--name", "rehearsal")):
        refused = mscli(*verb, "--json")
        assert (refused.code, refused.error["code"]) == (3, "not_running")
        assert "mscli restart rehearsal" in refused.error["hint"]


def test_the_self_test_names_what_the_server_refuses(mscli: Mscli) -> None:
    instance = mscli("up", "rehearsal", "--json", env={"MSCLI_API_KEY": "one"}).data["instance"]
    key = Path(instance["log"]).with_name("key")
    key.write_text("another\n")
    failed = mscli("check", "--json")
    assert failed.code == 5
    assert "HTTP 401" in failed.data["checks"][0]["seen"]
