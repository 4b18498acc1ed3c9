"""What mscli says of an Ollama server is what is so: asked of the stand-in always, and of a real Ollama where there is
one on PATH. The model is the rehearsal's, of 2 million parameters, on the CPU; the user's own server has it already."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.agents.page import requests, shapes
from support.agents.replay import due, replayed, told
from support.engines.hostile_shell import HOSTILE_SHELL, LOOPBACK, listening_at
from support.ollama.standins import Scene
from support.ollama.tiny import (
    GO_TEMPLATE,
    LIBRARY_TEMPLATE,
    PLAIN_GGUF,
    STRICT_TEMPLATE,
    TAG,
    answers,
    eventually,
    give,
    hashes,
    loaded,
    tags,
    write_profile,
)
from support.run_mscli import Mscli, Ran
from support.tiny_model.model import tiny_model
from support.tiny_model.writing import write

from mscli.chat.message import assistant, user
from mscli.chat.reply import ask, target_of
from mscli.chat.stream import Piece
from mscli.errors import MscliError
from mscli.instances.process import stat
from mscli.instances.records import Records
from mscli.paths import places


@dataclass(frozen=True)
class Site:
    """A user with Ollama, whose store has the model, and the way to call mscli as that user. `url`: of the user's own
    server, which runs."""

    call: Mscli
    env: Mapping[str, str]
    url: str
    serve: Callable[[], subprocess.Popen[bytes]]
    servers: list[subprocess.Popen[bytes]]
    store: Path

    @property
    def server(self) -> subprocess.Popen[bytes]:
        return self.servers[-1]

    def mscli(self, *args: str, **env: str) -> Ran:
        return self.call(*args, env={**self.env, **env})

    def up(self, *args: str, **env: str) -> str:
        """The root of the server on which the instance came up: Ollama itself, not the gateway before it."""
        done = self.mscli("up", "tiny", "--yes", "--json", *args, **env)
        assert done.code == 0, done.out + done.err
        shown = done.data["instance"]
        return f"http://127.0.0.1:{shown['engine_port'] or shown['port']}"

    def ollama(self) -> int:
        """The PID of the instance's own Ollama: the gateway's child."""
        (child,) = runners(self.status()["pid"])
        return child

    def status(self, name: str = "tiny") -> dict[str, Any]:
        return dict(self.mscli("status", name, "--json").data["instances"][0])


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.ollama)])
def site(
    request: pytest.FixtureRequest, mscli: Mscli, user_env: dict[str, str], program: Path, tmp_path: Path
) -> Iterator[Site]:
    env = dict(user_env)
    if request.param == "real":
        found = shutil.which("ollama")
        if found is None:
            pytest.skip("no ollama binary on PATH")
        program.unlink()
        program.symlink_to(found)
    env.pop("OLLAMA_HOST", None)
    write_profile(Path(env["MSCLI_HOME"]) / "config" / "profiles")
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    servers: list[subprocess.Popen[bytes]] = []

    def serve() -> subprocess.Popen[bytes]:
        """Start the user's own server, in place of the one before."""
        stop()
        with (tmp_path / "user-server.log").open("ab") as log:
            own = {**env, "OLLAMA_HOST": host, "OLLAMA_NO_CLOUD": "1"}
            servers.append(subprocess.Popen([program, "serve"], env=own, stdout=log, stderr=log))
        assert eventually(lambda: answers(f"http://{host}"))
        return servers[-1]

    def stop() -> None:
        for server in servers:
            server.terminate()
            server.wait(30)

    try:
        serve()
        give(f"http://{host}")
        yield Site(mscli, env, f"http://{host}", serve, servers, Path(env["HOME"]) / ".ollama" / "models")
    finally:
        mscli("down", "--all", env=env)
        stop()


def generate(url: str, model: str, **body: Any) -> None:
    httpx.post(f"{url}/api/generate", json={"model": model, **body}, timeout=60).raise_for_status()


def runners(pid: int) -> list[int]:
    """The children of a server that hold its models."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def lives(pid: int) -> bool:
    seen = stat(pid)
    return seen is not None and seen.state not in "ZXx"


def test_what_a_shell_still_holds_of_other_servers_changes_nothing(site: Site) -> None:
    url = site.up("--ctx", "2048", **HOSTILE_SHELL)
    shown = site.status()
    assert loaded(url) == {"mscli/tiny:latest": shown["context"]} == {"mscli/tiny:latest": 2048}
    for port in {shown["port"], shown["engine_port"]}:
        assert listening_at(port) == {LOOPBACK}, "it listens for other machines"
    assert "stand-in" in site.mscli("chat", "hello").out


def test_two_contexts_of_one_model_run_side_by_side_on_borrowed_weights(site: Site) -> None:
    before = hashes(site.store)
    one, two = site.up("--name", "one", "--ctx", "2048"), site.up("--name", "two", "--ctx", "4096")
    assert (loaded(one), loaded(two)) == ({"mscli/one:latest": 2048}, {"mscli/two:latest": 4096})
    pids = [site.status(name)["pid"] for name in ("one", "two")]
    assert site.mscli("chat", "hello", "--name", "one").code == 0
    assert site.mscli("chat", "hello", "--name", "two").code == 0
    assert loaded(site.url) == {}, "the user's own server was not used"
    assert site.mscli("down", "one").code == 0
    assert loaded(two) == {"mscli/two:latest": 4096}
    assert site.mscli("down", "two").code == 0
    assert not any(lives(pid) for pid in pids)
    assert hashes(site.store) == before


def test_status_tells_when_the_model_is_out_of_memory_and_up_loads_it_again(site: Site) -> None:
    url = site.up()
    assert (site.status()["state"], site.status()["note"]) == ("ready", None)
    generate(url, "mscli/tiny", keep_alive=0)
    assert eventually(lambda: site.status()["state"] == "unloaded")
    assert "not in memory" in site.status()["note"]
    found = site.mscli("doctor", "--only", "instances", "--json").data["findings"]
    assert [item["status"] for item in found if "tiny is unloaded" in item["seen"]] == ["warn"]
    assert site.up() == url
    assert loaded(url) == {"mscli/tiny:latest": 4096}
    assert site.status()["state"] == "ready"


def test_status_tells_when_the_process_that_holds_the_model_has_died(site: Site) -> None:
    url = site.up()
    for pid in runners(site.ollama()):
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: site.status()["state"] == "unloaded")
    assert loaded(url) != {}, "the server itself goes on listing it"
    assert "died" in site.status()["note"]
    site.up()
    assert site.status()["state"] == "ready"


def test_a_model_that_somebody_removed_is_made_again(site: Site) -> None:
    url = site.up()
    generate(url, "mscli/tiny", keep_alive=0)
    httpx.request("DELETE", f"{url}/api/delete", json={"model": "mscli/tiny"}).raise_for_status()
    assert eventually(lambda: site.status()["state"] == "unloaded")
    assert "no such model" in site.status()["note"]
    assert loaded(site.up()) == {"mscli/tiny:latest": 4096}


def test_a_dead_server_is_dead_and_what_it_left_behind_is_ended(site: Site) -> None:
    site.up()
    pid = site.ollama()
    left = runners(pid)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: site.status()["state"] == "crashed")
    assert site.status()["orphans"] == left
    assert site.mscli("down").code == 0
    assert not any(lives(each) for each in left)


def test_down_ends_a_server_that_is_frozen(site: Site) -> None:
    site.up()
    pid = site.ollama()
    left = [pid, *runners(pid)]
    os.kill(pid, signal.SIGSTOP)
    assert site.mscli("down").code == 0
    assert not any(lives(each) for each in left)


def test_an_adopted_server_keeps_nothing_of_ours_after_down(site: Site) -> None:
    host = site.url.removeprefix("http://")
    assert site.up("--adopt", OLLAMA_HOST=host) == site.url
    assert loaded(site.url) == {"mscli/tiny:latest": 4096}
    assert site.mscli("down", "--purge", OLLAMA_HOST=host).code == 0
    assert loaded(site.url) == {}
    assert tags(site.url) == {TAG}


def test_adopting_does_not_put_somebody_elses_model_out_of_memory_unasked(site: Site) -> None:
    host = site.url.removeprefix("http://")
    generate(site.url, TAG, options={"num_ctx": 2048})
    refused = site.mscli("up", "tiny", "--yes", "--json", "--adopt", OLLAMA_HOST=host)
    assert refused.error["code"] == "instance_exists"
    assert f"ollama stop {TAG}" in refused.error["hint"]
    assert loaded(site.url) == {TAG: 2048}
    site.up("--adopt", "--replace", OLLAMA_HOST=host)
    assert loaded(site.url) == {"mscli/tiny:latest": 4096}


def test_down_leaves_a_model_that_took_the_place_of_ours(site: Site) -> None:
    host = site.url.removeprefix("http://")
    site.up("--adopt", OLLAMA_HOST=host)
    generate(site.url, TAG, options={"num_ctx": 2048})
    assert loaded(site.url) == {TAG: 2048}
    assert site.mscli("down", OLLAMA_HOST=host).code == 0
    assert loaded(site.url) == {TAG: 2048}


def test_status_tells_what_became_of_the_model_on_an_adopted_server(site: Site) -> None:
    host = site.url.removeprefix("http://")
    site.up("--adopt", OLLAMA_HOST=host)
    assert (site.status()["state"], site.status()["note"]) == ("ready", None)
    for pid in runners(site.server.pid):
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: site.status()["state"] == "unloaded")
    assert "died" in site.status()["note"]
    site.up("--adopt", OLLAMA_HOST=host)
    assert site.status()["state"] == "ready"
    generate(site.url, "mscli/tiny", options={"num_ctx": 2048})
    assert "a context of 2048 tokens instead of the planned 4096" in site.status()["note"]
    site.serve()
    shown = site.status()
    assert (shown["state"], "the server was restarted" in shown["note"]) == ("unloaded", True)
    site.up("--adopt", OLLAMA_HOST=host)
    assert loaded(site.url) == {"mscli/tiny:latest": 4096}


def test_the_log_of_an_adopted_server_is_found_and_read(site: Site) -> None:
    host = site.url.removeprefix("http://")
    site.up("--adopt", OLLAMA_HOST=host)
    assert "Listening on" in site.mscli("logs", "tiny", "--grep", "listening", OLLAMA_HOST=host).out
    assert site.mscli("logs", "tiny", "--json", OLLAMA_HOST=host).data["log"].endswith("user-server.log")


def test_what_is_adopted_says_what_cannot_be_promised_there(site: Site) -> None:
    host = site.url.removeprefix("http://")
    done = site.mscli("up", "tiny", "--yes", "--json", "--adopt", OLLAMA_HOST=host)
    assert any("OLLAMA_KEEP_ALIVE" in warning for warning in done.data["warnings"])


def test_a_prompt_that_does_not_fit_is_told_in_tokens(site: Site) -> None:
    """One message that is too long is refused, and of many the oldest are dropped: the server is asked first."""
    site.up("--ctx", "1024", "--plain")
    refused = site.mscli("chat", "word " * 3_000, "--json")
    assert refused.error["code"] == "request_failed"
    assert "the context holds 1,024" in refused.error["message"]
    assert "larger --ctx" in refused.error["hint"]
    record = Records(places(site.env)).get("tiny")
    assert record is not None
    turns = [(user, assistant)[turn % 2]("word " * 150) for turn in range(21)]
    cut = ask(target_of(record), turns, lambda _: None).truncated
    assert cut is not None
    assert cut.sent_tokens > 3_000
    assert cut.evaluated_tokens <= 1024


LONG_WORDS = "word " * 1_022


def test_a_message_that_ollamas_own_template_cuts_to_half_is_told_in_tokens(site: Site) -> None:
    """As its library's models have one. Other clients get an answer to the half, without a word. Its words alone would
    fit: else mscli would not even send it."""
    give(site.url, TAG, PLAIN_GGUF, template=GO_TEMPLATE)
    url = site.up("--ctx", "1024", "--plain")
    body = {"model": "mscli/tiny", "messages": [user(LONG_WORDS)], "max_tokens": 1}
    cut = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
    assert 500 < cut["usage"]["prompt_tokens"] < 540
    said = site.mscli("chat", LONG_WORDS, "--json").data["truncated"]
    assert said["evaluated_tokens"] == cut["usage"]["prompt_tokens"]
    assert said["sent_tokens"] > 1_024
    told = site.mscli("chat", LONG_WORDS).err
    assert f"{said['evaluated_tokens']:,}" in told
    assert f"{said['sent_tokens']:,}" in told


def test_a_reply_that_breaks_off_is_a_failure_and_keeps_what_had_come(site: Site, scene: Scene) -> None:
    """The stream ends cleanly when the process that holds the model dies: no finish_reason, no [DONE]."""
    site.up("--ctx", "32768")
    pid = site.ollama()
    record = Records(places(site.env)).get("tiny")
    assert record is not None
    scene.play(faults=[{"on": "chat", "after": 3}])

    def hear(_: Piece) -> None:
        for runner in runners(pid):
            os.kill(runner, signal.SIGKILL)

    unending = [user("hello"), assistant("one")]
    with pytest.raises(MscliError, match="was cut off") as raised:
        ask(target_of(record), unending, hear)
    assert raised.value.details["text"]


def of_the_pages_version(site: Site, front: tuple[str, ...]) -> None:
    """Skips an older server than the page's where no gateway stands in front: 0.30.11 answers a tool of a kind that it
    does not know (`web_search`) with 500."""
    version = httpx.get(f"{site.url}/api/version", timeout=60).json()["version"]
    if "--plain" in front and tuple(map(int, re.findall(r"\d+", version)[:2])) < (0, 32):
        pytest.skip(f"the page tells of Ollama 0.33, this one is {version}")


@pytest.mark.parametrize(
    ("title", "template", "front"),
    [
        ("Ollama", LIBRARY_TEMPLATE, ("--plain",)),
        ("Ollama, own GGUF", None, ("--plain",)),
        ("Ollama, gateway", LIBRARY_TEMPLATE, ()),
    ],
)
def test_what_agents_send_is_answered_as_the_page_says(
    site: Site, title: str, template: str | None, front: tuple[str, ...]
) -> None:
    of_the_pages_version(site, front)
    if template:
        give(site.url, TAG, PLAIN_GGUF, template=template)
    site.up("--ctx", "2048", *front)
    checks = site.mscli("check", "--for", "agents", "--json").envelope["data"]["checks"]
    told = shapes(title)
    assert not {each["name"]: each["seen"] for each in checks if each["status"] != told[each["name"]]}
    assert {each["name"]: each["status"] for each in checks} == told
    env = site.mscli("env", "--json").data
    assert env["OLLAMA_HOST"] == env["MSCLI_ROOT_URL"] == env["OPENAI_BASE_URL"].removesuffix("/v1")


CALL = {"id": "call_of_another_server", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "call_of_another_server", "content": "r"}


@pytest.mark.parametrize(
    "talk",
    [
        [("user", "a"), ("assistant", "b"), ("system", "c"), ("user", "d")],
        [("system", "a"), ("system", "b"), ("user", "c"), ("user", "d")],
        [("developer", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("system", "e")],
        [("user", "a"), {"role": "assistant", "content": "", "tool_calls": [CALL]}, RESULT],
    ],
    ids=["system behind an answer", "neighbors", "system last", "a long id"],
)
def test_a_strict_template_inside_the_file_takes_what_clients_send_to_the_gateway(
    site: Site, tmp_path: Path, talk: list[Any]
) -> None:
    model = replace(tiny_model("text", "tiny"), chat_template=STRICT_TEMPLATE)
    write(tmp_path / "strict", model, ("q8_0",))
    (content,) = (path.read_bytes() for path in (tmp_path / "strict").glob("*.gguf"))
    give(site.url, TAG, content)
    site.up("--ctx", "2048")
    messages = [each if isinstance(each, dict) else {"role": each[0], "content": each[1]} for each in talk]
    root = site.mscli("env", "--json").data["MSCLI_ROOT_URL"]
    body = {"messages": messages, "max_tokens": 4}
    answer = httpx.post(f"{root}/v1/chat/completions", json=body, timeout=60)

    assert (answer.status_code, bool(answer.json()["choices"][0]["message"]["content"])) == (200, True), answer.text


@pytest.mark.parametrize("front", [("--plain",), ()], ids=["plain", "gateway"])
def test_requests_of_agents_are_answered_and_those_with_tools_by_a_call(site: Site, front: tuple[str, ...]) -> None:
    of_the_pages_version(site, front)
    site.up("--ctx", "4096", *front)
    root = site.mscli("env", "--json").data["MSCLI_ROOT_URL"]
    found = replayed(root, "mscli/tiny")
    assert found == due()
    assert told(found) == requests("Ollama" if front else "Ollama, gateway")
