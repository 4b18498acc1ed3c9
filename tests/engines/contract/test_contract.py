"""One contract for every engine: the same commands, the same JSON, the same API, and nothing left after a stop."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import pytest
from support.agents.page import requests, shapes
from support.agents.replay import replayed, told
from support.engines.engine_home import Home, Running, Twin, deltas, make_home
from support.engines.hostile_shell import LOOPBACK, listening_at
from support.picture import png
from support.weather import TOOL

from mscli.engines.engine import Capabilities
from mscli.engines.table import engine
from mscli.instances import process
from mscli.instances.records import Records
from mscli.lifecycle import port
from mscli.paths import places

HELLO = [{"role": "user", "content": "hello"}]
REPLY = "Hello! This is a scripted stand-in"


# Those with a start of their own come first, before the instance that the others share.


def test_down_leaves_nothing(home: Home) -> None:
    instance = home.up().data["instance"]
    record = Records(places(home.env)).all()[0][0]
    leader = process.identify(instance["pid"])
    assert leader is not None
    down = home.mscli("down", "--json").data["stopped"][0]

    assert down["survivors"] == []
    assert process.members(leader, record.mark) == ()
    assert port.free("127.0.0.1", instance["port"])
    assert not (record.log.parent / "tmp").exists() or not os.listdir(record.log.parent / "tmp")
    assert home.mscli("status").code == 3


def test_a_flag_that_it_does_not_know_is_named_as_the_cause(twin: Twin, weights: Path | None, tmp_path: Path) -> None:
    if weights is None:
        pytest.skip("the profile that comes with mscli has no options; tests/engines/llamacpp has this case")
    refused = make_home(twin, tmp_path / "home", weights, "{no-such-flag: true}").up()

    assert refused.error["code"] == "start_failed"
    assert refused.error["details"]["cause"] == "cli_flags"


def test_up_says_what_runs(twin: Twin, running: Running) -> None:
    instance, plan = running.data["instance"], running.data["plan"]

    assert (instance["state"], instance["engine"], plan["engine"]) == ("ready", twin.engine, twin.engine)
    assert running.data["already"] is False
    assert running.data["engine_seconds"] > 0


def test_status_sees_it_ready(running: Running) -> None:
    status = running.home.mscli("status", "--json")

    assert status.code == 0
    assert [(each["state"], each["port"]) for each in status.data["instances"]] == [
        ("ready", running.data["instance"]["port"])
    ]


def test_the_same_up_again_reports_what_runs(running: Running, capabilities: Capabilities) -> None:
    again = running.home.up()

    assert again.data["already"] is True
    assert again.data["instance"]["pid"] == running.data["instance"]["pid"]


def test_it_listens_on_this_machine_alone(running: Running) -> None:
    assert listening_at(running.data["instance"]["port"]) == {LOOPBACK}


def test_it_serves_the_planned_context_whatever_the_shell_holds(running: Running) -> None:
    """The model, the host and the key are what the tests beside this one ask for."""
    planned = running.data["plan"]["context"]

    assert running.data["instance"]["context"] == planned
    assert running.data["observed"]["context"] in (None, planned)
    models = running.client.get("/models")["data"]
    assert {model["max_model_len"] for model in models if model.get("max_model_len")} <= {planned}


def test_health_answers_200_without_a_key(twin: Twin, running: Running) -> None:
    root = running.client.url.removesuffix("/v1")

    with urllib.request.urlopen(f"{root}{engine(twin.engine).health_path}", timeout=10) as answer:
        assert answer.status == 200


def test_the_model_is_listed_by_its_alias(running: Running) -> None:
    assert running.client.model in [model["id"] for model in running.client.get("/models")["data"]]


def test_chat(running: Running) -> None:
    choice = running.client.ask(HELLO)

    assert choice["message"]["content"].startswith(REPLY)
    assert choice["message"]["content"].endswith("and stops.")
    assert choice["finish_reason"] == "stop"


def test_a_streamed_reply_is_the_same_in_pieces_with_its_tokens_counted(running: Running) -> None:
    events = running.client.stream(HELLO, stream_options={"include_usage": True})
    pieces = [delta["content"] for delta in deltas(events) if delta.get("content")]
    usage = next(event["usage"] for event in events if event.get("usage"))

    assert len(pieces) > 5
    assert "".join(pieces) == running.client.ask(HELLO)["message"]["content"]
    assert usage["completion_tokens"] >= len(pieces)


def test_a_limit_of_tokens_is_kept(running: Running) -> None:
    choice = running.client.ask(HELLO, max_tokens=3)

    assert choice["finish_reason"] == "length"
    assert REPLY.startswith(choice["message"]["content"].removesuffix("!").rstrip()[:5])


def test_mscli_chat(running: Running) -> None:
    chat = running.home.mscli("chat", "hello")

    assert chat.code == 0
    assert REPLY in chat.out


def test_a_request_without_the_key_is_refused(running: Running, capabilities: Capabilities) -> None:
    if not capabilities.api_key:
        pytest.skip("this engine takes no key, and says so")

    assert running.client.post(key="another", messages=HELLO)[0] == 401


def test_the_key_stands_in_no_command_line(running: Running, capabilities: Capabilities) -> None:
    if running.client.key is None:
        pytest.skip("this engine takes no key, and says so")
    command = Path(f"/proc/{running.data['instance']['pid']}/cmdline").read_bytes()

    assert running.client.key.encode() not in command


def test_a_call_of_a_tool(running: Running, capabilities: Capabilities) -> None:
    if not capabilities.tools:
        pytest.skip("this engine calls no tools, and says so")
    choice = running.client.ask(HELLO, tools=[TOOL])
    function = choice["message"]["tool_calls"][0]["function"]

    assert choice["finish_reason"] == "tool_calls"
    assert (function["name"], json.loads(function["arguments"])) == ("get_weather", {"city": "Paris"})


def test_a_streamed_call_of_a_tool(running: Running, capabilities: Capabilities) -> None:
    if not capabilities.tools:
        pytest.skip("this engine calls no tools, and says so")
    parts = [
        call["function"]
        for delta in deltas(running.client.stream(HELLO, tools=[TOOL]))
        for call in delta.get("tool_calls") or ()
    ]

    assert "".join(part.get("name") or "" for part in parts) == "get_weather"
    assert json.loads("".join(part.get("arguments") or "" for part in parts)) == {"city": "Paris"}


def test_the_answer_to_a_tools_result(running: Running, capabilities: Capabilities) -> None:
    if not capabilities.tools:
        pytest.skip("this engine calls no tools, and says so")
    call = running.client.ask(HELLO, tools=[TOOL])["message"]["tool_calls"][0]
    asked = {"role": "assistant", "content": "", "tool_calls": [{**call, "id": "abcdefgh9"}]}
    result = {"role": "tool", "tool_call_id": "abcdefgh9", "content": '{"sky": "clear"}'}
    answer = running.client.ask([*HELLO, asked, result], tools=[TOOL])

    assert answer["message"]["content"].startswith("The weather in Paris is sunny")


def test_an_image(running: Running, capabilities: Capabilities) -> None:
    if not capabilities.vision:
        pytest.skip("this engine takes no images, and says so")
    picture = {"type": "image_url", "image_url": {"url": png()}}
    content = [{"type": "text", "text": "What is this?"}, picture]

    assert running.client.ask([{"role": "user", "content": content}])["message"]["content"] == (
        "I can see one image in this request."
    )


def test_logs_are_kept(running: Running) -> None:
    assert len(running.home.mscli("logs", "--json", "-n", "3").data["lines"]) == 3


def test_what_agents_send_is_answered_as_the_page_says(running: Running, twin: Twin) -> None:
    checks = running.home.mscli("check", "--for", "agents", "--json").envelope["data"]["checks"]
    told = shapes(twin.engine)
    found = {each["name"]: each["status"] for each in checks}
    wrong = {each["name"]: each["seen"] for each in checks if each["status"] != told[each["name"]]}
    assert not wrong, wrong
    assert found == told


def test_first_requests_of_agents_become_what_the_page_says(running: Running, twin: Twin) -> None:
    client = running.client
    found = replayed(client.url.removesuffix("/v1"), client.model, client.key)
    assert told(found) == requests(twin.engine), found
