"""The gateway in front of Ollama, whole: the real mscli and gateway, a described card, and the stand-in for Ollama."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.faults.user import until
from support.ollama.standins import Scene
from support.run_mscli import Mscli
from support.weather import TOOL

from mscli.instances.process import Identity, alive, identify

ALIAS, KEY = "mscli/small-q4", "a-key-of-the-test"
HELLO = [{"role": "user", "content": "hello"}]
LONG = [{"role": "user", "content": "word " * 20_000}]
Machine = Callable[..., dict[str, str]]


@contextmanager
def started(mscli: Mscli, env: dict[str, str], *flags: str) -> Iterator[dict[str, Any]]:
    """An instance with a gateway, stopped at the end."""
    done = mscli("up", "small-q4", "--yes", "--json", "--ctx", "8192", *flags, env=env)
    assert done.code == 0, done.out + done.err
    try:
        yield done.data
    finally:
        assert mscli("down", "--all", env=env).code == 0


def root(data: dict[str, Any]) -> str:
    return str(data["instance"]["base_url"]).removesuffix("/v1")


def post(data: dict[str, Any], path: str, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.post(
        f"{root(data)}{path}", json={"model": ALIAS, **body}, headers=headers, timeout=30, trust_env=False
    )


def chat(data: dict[str, Any], messages: list[dict[str, Any]], key: str | None = None, **more: Any) -> httpx.Response:
    return post(data, "/v1/chat/completions", key, messages=messages, **more)


def native(data: dict[str, Any], path: str, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    method = "POST" if body else "GET"
    return httpx.request(method, f"{root(data)}/api/{path}", json=body or None, headers=headers, trust_env=False)


def processes(data: dict[str, Any]) -> tuple[Identity, Identity]:
    """The gateway and its engine."""
    gateway = int(data["instance"]["pid"])
    children = Path(f"/proc/{gateway}/task/{gateway}/children").read_text().split()
    found = identify(gateway), identify(int(children[0]))
    assert found[0]
    assert found[1]
    return found  # type: ignore[return-value]


def test_on_an_open_address_a_key_is_asked_for_and_the_engine_stays_on_loopback(
    mscli: Mscli, machine: Machine, home: Path
) -> None:
    env = {**machine("rtx4090"), "MSCLI_API_KEY": KEY}
    with started(mscli, env, "--host", "0.0.0.0") as data:
        inner = data["instance"]["engine_port"]
        rows = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        assert f"0100007F:{inner:04X}" in rows
        assert f"00000000:{inner:04X}" not in rows

        assert chat(data, HELLO).status_code == 401
        assert native(data, "tags").status_code == 401
        assert chat(data, HELLO, KEY).json()["choices"][0]["message"]["content"].startswith("Hello!")
        assert native(data, "tags", KEY).json()["models"]
        assert httpx.get(f"{root(data)}/health", trust_env=False).json() == {"status": "ok"}
        assert "a stand-in for Ollama" in mscli("chat", "hello", env=env).out
        assert f"{inner} (on 127.0.0.1 only, without an API key)" in mscli("status", "small-q4", env=env).out

        file = home / "state" / "instances" / "small-q4" / "key"
        file.write_text(f"{KEY}\nanother\n")
        assert chat(data, HELLO, "another").status_code == 200
        again = mscli("restart", "small-q4", "--json", env=env)
        assert again.code == 0, again.err
        assert chat(again.data, HELLO, "another").status_code == 200
        file.write_text("another\n")
        assert chat(again.data, HELLO, KEY).status_code == 401


def test_one_instance_serves_what_clients_need(mscli: Mscli, machine: Machine, scene: Scene) -> None:
    """Each start takes seconds, so one does for all that is only asked."""
    env = machine("rtx4090")
    with started(mscli, env) as data:
        assert not any("clients must send" in warning for warning in data["warnings"])
        assert mscli("check", "--json", env=env).data["notes"] == []
        assert "8,192" in mscli("chat", "word " * 20_000, env=env).err
        it_answers_what_ollamas_own_endpoint_does_not(data)
        codex_and_claude_code_are_answered(data)
        of_ollamas_own_api_only_what_uses_the_model_passes(data)
        a_reply_that_breaks_off_ends_with_an_error_and_without_done(data, scene)


def it_answers_what_ollamas_own_endpoint_does_not(data: dict[str, Any]) -> None:
    refused = chat(data, LONG)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "exceeds the available context size (8192 tokens)" in error["message"]
    assert "(20004 tokens)" in error["message"]

    assert chat(data, HELLO, max_completion_tokens=2).json()["usage"]["completion_tokens"] == 2
    assert chat(data, HELLO, tools=[TOOL], tool_choice="none").json()["choices"][0]["finish_reason"] == "stop"
    called = chat(data, HELLO, tools=[TOOL]).json()["choices"][0]
    assert called["finish_reason"] == "tool_calls"
    call = called["message"]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call["id"], "content": [{"type": "text", "text": "sunny"}]}
    told = chat(data, [*HELLO, called["message"], result], tools=[TOOL])
    assert told.json()["choices"][0]["message"]["content"].startswith("The weather in Paris is sunny")

    for field, value in {"n": 2, "tool_choice": "required", "logit_bias": {"1": 1}}.items():
        assert chat(data, HELLO, **{field: value}).status_code == 400


def codex_and_claude_code_are_answered(data: dict[str, Any]) -> None:
    tool = {**TOOL["function"], "type": "function"}
    told = post(data, "/v1/responses", input=HELLO, tools=[tool, {"type": "web_search"}], store=False)
    assert told.json()["output"][0]["arguments"] == '{"city": "Paris"}'
    function = TOOL["function"]
    mine = {"name": function["name"], "description": "d", "input_schema": function["parameters"]}
    block = post(data, "/v1/messages", messages=HELLO, max_tokens=50, tools=[mine]).json()["content"][0]
    assert (block["type"], block["input"]) == ("tool_use", {"city": "Paris"})
    refused = post(data, "/v1/messages", messages=LONG, max_tokens=50)
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")


def of_ollamas_own_api_only_what_uses_the_model_passes(data: dict[str, Any]) -> None:
    asked = {"messages": HELLO, "stream": False, "keep_alive": 0, "options": {"num_ctx": 128}}
    assert native(data, "chat", model=ALIAS, **asked).json()["done_reason"] == "stop"
    assert native(data, "generate", model=ALIAS, keep_alive=0).status_code == 200
    held = native(data, "ps").json()["models"]
    assert [(model["name"], model["context_length"]) for model in held] == [(f"{ALIAS}:latest", 8192)]
    assert native(data, "show", model=ALIAS).json()["parameters"]
    assert native(data, "version").json()["version"]
    assert native(data, "chat", model="another", messages=HELLO).status_code == 404
    for path in ("pull", "create", "copy", "delete", "push", "embed"):
        refused = native(data, path, model=ALIAS)
        assert (refused.status_code, "manages the server" in refused.json()["error"]) == (403, True)


def a_reply_that_breaks_off_ends_with_an_error_and_without_done(data: dict[str, Any], scene: Scene) -> None:
    scene.play(faults=[{"on": "chat", "after": 2}])
    events = chat(data, HELLO, stream=True).text.strip().split("\n\n")
    assert "error" in json.loads(events[-1].removeprefix("data: "))
    assert "[DONE]" not in "".join(events)
    scene.play(faults=[{"on": "chat", "after": 2, "always": True}])
    whole = chat(data, HELLO)
    assert whole.status_code >= 500
    assert whole.json()["error"]["message"]


def test_whichever_of_both_is_killed_the_instance_has_crashed_and_down_leaves_nothing(
    mscli: Mscli, machine: Machine
) -> None:
    env = machine("rtx4090")
    for ended, number in ((0, signal.SIGKILL), (1, signal.SIGTERM)):
        with started(mscli, env, "--replace") as data:
            both = processes(data)
            os.kill(both[ended].pid, number)
            until(lambda: mscli("status", "--json", env=env).data["instances"][0]["state"] == "crashed")
        assert not any(alive(each) for each in both)


def test_a_supervised_one_is_back_with_its_model_loaded(mscli: Mscli, machine: Machine) -> None:
    env = machine("rtx4090")
    with started(mscli, env, "--supervise") as data:
        companion = int(data["instance"]["pid"])
        gateway = int(Path(f"/proc/{companion}/task/{companion}/children").read_text().split()[0])
        engine = int(Path(f"/proc/{gateway}/task/{gateway}/children").read_text().split()[0])
        os.kill(engine, signal.SIGKILL)

        def back() -> bool:
            seen = mscli("status", "--json", env=env).data["instances"][0]
            return bool(seen["restarts"] == 1 and seen["state"] == "ready")

        until(back, 60)
        assert chat(data, HELLO).status_code == 200


@pytest.mark.usefixtures("mscli")
def test_health_says_that_the_model_loads(user_env: dict[str, str], machine: Machine, scene: Scene) -> None:
    env, seen = {**user_env, **machine("rtx4090")}, set[tuple[int, str]]()
    scene.play(load_s=2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "mscli", "up", "small-q4", "--yes", "--port", str(port)]
    starting = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ready() -> bool:
        try:
            said = httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
        except httpx.TransportError:
            return False
        seen.add((said.status_code, said.json()["status"]))
        return said.status_code == 200

    until(ready, 60)
    assert starting.wait(60) == 0
    assert seen == {(503, "loading"), (200, "ok")}


@pytest.mark.parametrize("flags", [("--adopt",), ("--plain",)])
def test_a_key_without_a_gateway_is_refused(mscli: Mscli, machine: Machine, flags: tuple[str, ...]) -> None:
    env = {**machine("rtx4090"), "MSCLI_API_KEY": KEY}
    refused = mscli("up", "small-q4", "--yes", "--json", *flags, env=env)
    assert refused.code != 0
