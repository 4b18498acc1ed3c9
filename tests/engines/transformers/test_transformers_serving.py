"""The real Transformers on the CPU: quantised, thinking, with images, without a template, stopped while it loads."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.engines.gateways import gateway, shared
from support.engines.installed_engines import CACHE
from support.engines.odd_requests import FULL, variations
from support.tiny_models import TinyModels

from mscli.diagnosis.diagnose import start_failure
from mscli.engines.templates import chat_template
from mscli.engines.transformers.engine import SERVER, Transformers

pytestmark = pytest.mark.engines
DEADLINE_S = 300.0
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "w", "parameters": {"type": "object"}}}
HELLO = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Process:
    """A started server."""

    process: subprocess.Popen[bytes]
    port: int
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def send(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ask(self, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        status, text = self.send("POST", "/v1/chat/completions", {"messages": messages, "max_tokens": 64, **more})
        assert status == 200, text
        return dict(json.loads(text)["choices"][0]["message"])

    def wait_for(self, status: int) -> None:
        """Until /health answers with this status; fails with the log when the process ends first."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                if self.send("GET", "/health")[0] == status:
                    return
            except ConnectionError:
                pass
            try:
                raise AssertionError(f"ended with {self.process.wait(0.02)}:\n{self.log}")
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError(f"no {status} within {DEADLINE_S} s:\n{self.log}")


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of the environment under test."""
    named = os.environ.get("MSCLI_TRANSFORMERS")
    installed = sorted(CACHE.glob("transformers-*"))
    if not named and not installed:
        pytest.fail("no Transformers to test with: run tests/run_engines transformers, which installs it")
    return (Path(named) if named else installed[-1]) / "bin" / "python"


@contextmanager
def serving(python: Path, folder: Path, log: Path, *flags: str) -> Iterator[Process]:
    """A server for the model in `folder`, not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = ("--model", str(folder), "--alias", "twin", "--context", "2048", "--device", "cpu")
    argv = gateway(port, "library", *shared(flags), before=(str(python), str(SERVER), *own, *flags))
    env: Mapping[str, str] = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    with log.open("wb") as file:
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        yield Process(process, port, log)
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize(("quantisation", "share"), [("bnb-4bit", 0.25), ("bnb-8bit", 0.5)])
def test_it_answers_quantised_and_only_the_layers_take_less(
    quantisation: str, share: float, python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    folder = tiny_model("small31", formats=("hugging-face",)).folder
    matrices = 1179648 * 2  # bytes of the layers' matrices in 16 bits; the rest stays as it is
    rest = (folder / "model.safetensors").stat().st_size - matrices
    with serving(python, folder, tmp_path / "log", "--quantization", quantisation) as server:
        server.wait_for(200)
        weights = Transformers().observe(server.log).weights_bytes

        assert server.ask(HELLO)["content"].startswith("Hello!")
        assert weights is not None
        assert weights - rest == pytest.approx(share * matrices, rel=0.02)


def test_a_thought_is_told_apart_and_a_request_for_more_than_the_context_is_refused(
    python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    folder = tiny_model("magistral", formats=("hugging-face",)).folder
    with serving(python, folder, tmp_path / "log") as server:
        server.wait_for(200)
        message = server.ask(HELLO)
        long = [{"role": "user", "content": "word " * 3000}]
        status, text = server.send("POST", "/v1/chat/completions", {"messages": long})

        assert message["reasoning_content"] == "The user wants an answer, so I plan one briefly."
        assert message["content"].startswith("Hello!")
        assert server.ask(HELLO, tools=[TOOL])["tool_calls"][0]["function"]["name"] == "get_weather"
        assert (status, "2048 tokens" in text) == (400, True)


def test_images_come_inside_the_request_and_as_many_as_were_planned(
    python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    folder = tiny_model("small31", formats=("hugging-face",)).folder
    broken = "data:image/png;base64," + base64.b64encode(b"no picture").decode()
    with serving(python, folder, tmp_path / "log", "--images", "1") as server:
        server.wait_for(200)

        def sent(*urls: str) -> tuple[int, str]:
            content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            return server.send("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]})

        for urls, words in (
            (("http://127.0.0.1:1/cat.png",), "as data URLs"),
            ((broken,), "cannot be read"),
        ):
            status, text = sent(*urls)
            assert (status, words in text) == (400, True), text


def test_many_clients_at_once_and_odd_requests_are_all_answered(
    python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    folder = tiny_model("small31", formats=("hugging-face",)).folder
    full = {name: value for name, value in FULL.items() if name != "response_format"}
    with serving(python, folder, tmp_path / "log", "--images", "1", "--users", "2") as server:
        server.wait_for(200)

        def status(body: object) -> int:
            return server.send("POST", "/v1/chat/completions", body)[0]

        with ThreadPoolExecutor(60) as clients:
            assert set(clients.map(status, [full] * 60)) == {200}
        odd = [body for body in variations(full) if body is not None][::8]
        assert {status(body) for body in odd} == {200, 400}
        assert "Traceback" not in server.log


def test_a_model_without_a_template_for_tools_gets_ours(python: Path, tiny_model: TinyModels, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(tiny_model("small31", formats=("hugging-face",)).folder, folder)
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    template = tmp_path / "chat-template.jinja"
    template.write_text(chat_template("v7"))
    with serving(python, folder, tmp_path / "log", "--chat-template", str(template)) as server:
        server.wait_for(200)
        called = server.ask(HELLO, tools=[TOOL])
        result = {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": "21 degrees"}
        system = {"role": "system", "content": "Be brief."}

        assert called["tool_calls"][0]["function"]["name"] == "get_weather"
        assert server.ask([system, *HELLO, called, result], tools=[TOOL])["content"].startswith("The weather in Paris")


def test_a_model_with_tekken_json_alone_speaks_through_mistral_common(
    python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    folder = tmp_path / "tekken"
    shutil.copytree(tiny_model("magistral", formats=("hugging-face", "mistral")).folder, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        (folder / name).unlink()
    with serving(python, folder, tmp_path / "log") as server:
        server.wait_for(200)
        called = server.ask(HELLO, tools=[TOOL])
        result = {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": "21 degrees"}

        assert server.ask(HELLO)["reasoning_content"].startswith("The user wants an answer")
        assert server.ask([*HELLO, called, result], tools=[TOOL])["content"].startswith("The weather in Paris")


def test_a_signal_ends_it_also_while_it_loads(python: Path, tiny_model: TinyModels, tmp_path: Path) -> None:
    folder = tiny_model("text", formats=("hugging-face",)).folder
    with serving(python, folder, tmp_path / "log") as server:
        server.wait_for(503)
        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(10) == -signal.SIGTERM


def test_weights_that_are_no_safetensors_are_named_as_the_cause(
    python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_model("text", formats=("hugging-face",)).folder, folder)
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with serving(python, folder, tmp_path / "log") as server:
        status = server.process.wait(DEADLINE_S)

        assert start_failure(server.log, "transformers", status).code == "corrupt_weights", server.log
