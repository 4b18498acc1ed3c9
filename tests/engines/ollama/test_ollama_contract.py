"""What mscli relies on in Ollama's API: asked of the stand-in always, and of a real Ollama where one is on PATH.

The same questions to both keep the stand-in honest. The real one runs on the CPU with the rehearsal model, in a models
folder of its own, and needs no network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.ollama.standins import MAGISTRAL, SMALL, Scene, Server

import mscli
from mscli.catalog.sampling import Sampling
from mscli.chat.message import user
from mscli.chat.reply import Target, ask
from mscli.diagnosis.diagnose import start_failure
from mscli.engines.ollama.api import Api, Refusal

BASE = "base:latest"
DERIVED = "mscli/derived"
START_TIMEOUT_S = 60.0


@pytest.fixture(params=["standin_port", pytest.param("real_port", marks=pytest.mark.ollama)])
def api(request: pytest.FixtureRequest) -> Api:
    """A server that has one model, BASE."""
    made = Api("127.0.0.1", request.getfixturevalue(request.param))
    _give(made.url, Path(mscli.__file__).parent / "rehearsal" / "rehearsal-q8_0.gguf")
    return made


@pytest.fixture
def standin_port(start: Callable[..., Server]) -> int:
    return start().port


@pytest.fixture
def real_port(tmp_path: Path) -> Iterator[int]:
    program = shutil.which("ollama")
    if program is None:
        pytest.skip("no ollama binary on PATH")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {"OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": str(tmp_path / "models"), "CUDA_VISIBLE_DEVICES": "-1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve"], env={**os.environ, **own}, stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}", process)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/api/version")
            return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail(f"the real server did not answer; exit status {process.poll()}")


def _give(url: str, model: Path) -> None:
    """Make BASE from a GGUF file, as `ollama create` does it."""
    content = model.read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    httpx.post(f"{url}/api/blobs/{digest}", content=content, timeout=60).raise_for_status()
    made = {"model": BASE, "files": {model.name: digest}, "stream": False}
    httpx.post(f"{url}/api/create", json=made, timeout=60).raise_for_status()


def test_the_version_is_told(api: Api) -> None:
    assert api.version().split(".")[0].isdigit()


def test_models_are_listed_by_their_full_name_with_their_size(api: Api) -> None:
    models = httpx.get(f"{api.url}/api/tags").json()["models"]
    assert [model["model"] for model in models] == [BASE]
    assert models[0]["size"] > 0


def test_a_derived_model_has_its_own_parameters_and_system_prompt(api: Api) -> None:
    api.create(DERIVED, BASE, {"num_ctx": 1024, "temperature": 0.15}, "Be brief.")
    told = httpx.post(f"{api.url}/api/show", json={"model": DERIVED}).json()
    parameters = dict(line.split(maxsplit=1) for line in told["parameters"].splitlines())
    assert parameters.items() >= {"num_ctx": "1024", "temperature": "0.15"}.items()
    assert told["system"] == "Be brief."


def test_it_is_loaded_listed_with_its_context_and_unloaded(api: Api) -> None:
    api.create(DERIVED, BASE, {"num_ctx": 1024}, None)
    assert api.loaded(DERIVED) is None
    api.load(DERIVED, -1)
    loaded = api.loaded(DERIVED)
    assert loaded is not None
    assert loaded.size_bytes > 0
    assert loaded.context in (1024, None)
    api.unload(DERIVED)
    deadline = time.monotonic() + 30
    while api.loaded(DERIVED) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert api.loaded(DERIVED) is None


def test_openai_clients_stream_from_it_and_are_told_the_tokens(api: Api) -> None:
    api.create(DERIVED, BASE, {"num_ctx": 1024}, None)
    target = Target("derived", f"{api.url}/v1", None, DERIVED, Sampling(0.0, None, 16), splits_think=False)
    reply = ask(target, [user("hello")], lambda _: None)
    assert reply.text
    assert reply.prompt_tokens
    assert reply.completion_tokens


def test_a_removed_model_is_gone_and_the_one_it_came_from_is_not(api: Api) -> None:
    api.create(DERIVED, BASE, {"num_ctx": 1024}, None)
    api.delete(DERIVED)
    assert [model["model"] for model in httpx.get(f"{api.url}/api/tags").json()["models"]] == [BASE]


@pytest.mark.parametrize(
    "call",
    [lambda api: api.load("nobody", -1), lambda api: api.unload("nobody"), lambda api: api.delete("nobody")],
    ids=["load", "unload", "delete"],
)
def test_a_model_that_is_not_there_is_404_with_words_that_name_the_cause(api: Api, call: Callable[[Api], None]) -> None:
    with pytest.raises(Refusal) as raised:
        call(api)
    assert raised.value.status == 404
    assert start_failure(raised.value.words, "ollama", None).code == "model_not_found"


def test_the_openai_endpoint_names_a_missing_model_too(api: Api) -> None:
    asked = {"model": "nobody", "messages": [{"role": "user", "content": "hello"}]}
    answer = httpx.post(f"{api.url}/v1/chat/completions", json=asked)
    assert answer.status_code == 404
    assert "not found" in answer.json()["error"]["message"]


# Below: what takes a model with these abilities, which only the stand-in has here.

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "", "parameters": {"type": "object"}}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def able(start: Callable[..., Server]) -> str:
    """The root of a stand-in that has both library models."""
    server = start()
    for name in (SMALL, MAGISTRAL):
        httpx.post(f"{server.url}/api/pull", json={"model": name}, timeout=30).raise_for_status()
    return server.url


def native(url: str, model: str, message: dict[str, Any], **rest: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", **message}], "stream": False, **rest}
    return dict(httpx.post(f"{url}/api/chat", json=body, timeout=30).json())


def openai(url: str, model: str, content: Any, **rest: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": content}], **rest}
    return dict(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).json()["choices"][0])


def test_an_image_is_seen_through_both_apis(able: str) -> None:
    here = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    by_openai = openai(able, SMALL, [here, {"type": "text", "text": "What is this?"}])
    by_native = native(able, SMALL, {"content": "What is this?", "images": [PIXEL]})
    assert by_native["message"]["content"] == by_openai["message"]["content"] == "I can see one image in this request."


def test_a_tool_is_called_through_both_apis(able: str) -> None:
    choice = openai(able, SMALL, "What is the weather?", tools=[TOOL])
    call = native(able, SMALL, {"content": "What is the weather?"}, tools=[TOOL])["message"]["tool_calls"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city":"Paris"}'}
    assert call["function"] == {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}}


@pytest.mark.parametrize("abilities", [["completion", "thinking"], ["completion"]])
def test_a_thought_is_a_thought_however_the_server_tells_it(
    start: Callable[..., Server], scene: Scene, abilities: list[str]
) -> None:
    """Newer servers tell it apart; for older ones it is <think> text that the system prompt asks for."""
    scene.play(registry={MAGISTRAL: {"layers": [1000], "capabilities": abilities}})
    server = start()
    httpx.post(f"{server.url}/api/pull", json={"model": MAGISTRAL}, timeout=30).raise_for_status()
    Api("127.0.0.1", server.port).create(DERIVED, MAGISTRAL, {}, "Think like this: <think>...</think>")
    target = Target("m", f"{server.url}/v1", None, DERIVED, Sampling(0.7, 0.95, None), splits_think=True)
    reply = ask(target, [user("hello")], lambda _: None)
    assert reply.reasoning.strip() == "The user wants an answer, so I plan one briefly."
    assert reply.text.strip().startswith("Hello!")
    assert "think" not in reply.text


def test_a_model_without_an_ability_refuses_with_words_that_name_the_cause(able: str) -> None:
    words = native(able, MAGISTRAL, {"content": "What is this?", "images": [PIXEL]})["error"]
    assert start_failure(words, "ollama", None).code == "vision"
