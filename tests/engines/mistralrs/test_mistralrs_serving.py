"""The real mistral.rs, from its wheel, on the CPU: other quantisations, folders that hold two formats, a thought."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.engines.gateways import gateway, shared
from support.engines.installed_engines import CACHE
from support.engines.odd_requests import FULL, variations
from support.tiny_models import TinyModels

from mscli.diagnosis.diagnose import start_failure
from mscli.engines.mistralrs.engine import FOLDER, MistralRs
from mscli.engines.mistralrs.installation import SERVER
from mscli.engines.templates import chat_template

pytestmark = pytest.mark.engines
DEADLINE_S = 300.0
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of the environment under test."""
    named = os.environ.get("MSCLI_MISTRALRS")
    installed = sorted(CACHE.glob("mistralrs-*"))
    if not named and not installed:
        pytest.fail("no mistral.rs to test with: run tests/run_engines mistral.rs, which installs it")
    return (Path(named) if named else installed[-1]) / "bin" / "python"


class Served:
    """A started server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self._log = process, port, log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_ready(self) -> None:
        """Until it answers; fails with the log when the process ends first."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError):
                pass
            try:
                raise AssertionError(f"ended with {self.process.wait(0.02)}:\n{self.log}")
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError(f"not ready within {DEADLINE_S} s:\n{self.log}")

    def post(self, body: object) -> tuple[int, str]:
        """Status and text of the answer to a chat completion request."""
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def ask(self, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        status, text = self.post({"messages": messages, "max_tokens": 64, "temperature": 0.1, **more})
        assert status == 200, text
        return dict(json.loads(text)["choices"][0]["message"])


@contextmanager
def serving(python: Path, folder: Path, where: Path, *flags: str) -> Iterator[Served]:
    """A server for the model in `folder`, not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = (str(python), str(SERVER), "--model", "twin", "--alias", "twin", "--context", "2048")
    template = where / "chat-template.jinja"
    template.write_text(chat_template("v7"))
    engine = (
        sys.executable,
        str(FOLDER),
        str(folder),
        "twin",
        "2048",
        *server,
        "--chat-template",
        str(template),
        *flags,
    )
    argv = gateway(port, "library", *shared(flags), before=engine)
    (where / "tmp").mkdir()
    with (where / "log").open("wb") as file:
        process = subprocess.Popen(
            argv, env={**os.environ, "TMPDIR": str(where / "tmp")}, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        yield Served(process, port, where / "log")
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("flags", [(), ("--isq", "q8_0"), ("--isq", "q6k")], ids=["as stored", "q8_0", "q6k"])
def test_it_answers_however_it_is_quantised(
    flags: tuple[str, ...], python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    folder = tiny_model("text", formats=("hugging-face",)).folder
    with serving(python, folder, tmp_path, *flags) as server:
        server.wait_ready()

        assert server.ask(HELLO)["content"].startswith("Hello!")
        assert MistralRs().observe(server.log).gpu_layers == (0, 3)


def test_files_of_mistrals_own_format_beside_those_it_reads_do_not_put_it_off(
    python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    folder = tiny_model("small31", formats=("hugging-face", "mistral")).folder
    assert (folder / "params.json").exists()
    with serving(python, folder, tmp_path) as server:
        server.wait_ready()

        assert server.ask(HELLO)["content"].startswith("Hello!")


def test_a_model_with_tekken_json_alone_is_read(python: Path, tiny_model: TinyModels, tmp_path: Path) -> None:
    folder = tmp_path / "tekken"
    shutil.copytree(tiny_model("small31", formats=("hugging-face", "mistral")).folder, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        (folder / name).unlink()
    with serving(python, folder, tmp_path) as server:
        server.wait_ready()

        assert server.ask(HELLO)["content"].startswith("Hello!")


def test_a_conversation_goes_on_after_a_system_prompt_and_an_answer(
    python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    folder = tiny_model("small31", formats=("hugging-face",)).folder
    with serving(python, folder, tmp_path) as server:
        server.wait_ready()
        first = server.ask([{"role": "system", "content": "Be brief."}, *HELLO])

        assert server.ask([*HELLO, first, *HELLO])["content"].startswith("Hello!")


def test_many_clients_at_once_and_odd_requests_are_all_answered(
    python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    folder = tiny_model("small31", formats=("hugging-face",)).folder
    with serving(python, folder, tmp_path, "--users", "2", "--images", "1") as server:
        server.wait_ready()

        def status(body: object) -> int:
            return server.post(body)[0]

        with ThreadPoolExecutor(60) as clients:
            assert set(clients.map(status, [FULL] * 60)) == {200}
        assert {status(body) for body in list(variations(FULL))[::8]} == {200, 400}
        assert "Traceback" not in server.log


def test_a_reply_keeps_to_a_schema(python: Path, tiny_model: TinyModels, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [7]}}, "required": ["a"], "additionalProperties": False}
    asked = {"type": "json_schema", "json_schema": {"name": "seven", "schema": schema}}
    with serving(python, tiny_model("text", formats=("hugging-face",)).folder, tmp_path) as server:
        server.wait_ready()
        text = server.ask(HELLO, response_format=asked)["content"]

    assert text.startswith("{"), "free text although a schema was asked for"


def test_a_prompt_beyond_the_planned_context_is_refused_and_a_reply_ends_at_it(
    python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    with serving(python, tiny_model("small31", formats=("hugging-face",)).folder, tmp_path) as server:
        server.wait_ready()
        status, text = server.post({"messages": [{"role": "user", "content": "word " * 1500}]})
        assert (status, "2048" in text) == (400, True)

        status, text = server.post({"messages": [{"role": "user", "content": "word " * 1019}]})
        assert json.loads(text)["choices"][0]["finish_reason"] == "length"


def test_a_thought_runs_together_with_the_answer_which_is_why_it_says_no_reasoning(
    python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    folder = tiny_model("magistral", formats=("hugging-face",)).folder
    with serving(python, folder, tmp_path) as server:
        server.wait_ready()
        message = server.ask(HELLO)

    assert "reasoning_content" not in message
    assert message["content"].startswith("The user wants an answer, so I plan one briefly.Hello!")
    assert MistralRs.capabilities.reasoning is False


def test_weights_that_are_no_safetensors_are_named_as_the_cause(
    python: Path, tiny_model: TinyModels, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_model("text", formats=("hugging-face",)).folder, folder)
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with serving(python, folder, tmp_path) as server:
        status = server.process.wait(DEADLINE_S)

        assert start_failure(server.log, "mistralrs", status).code == "corrupt_weights", server.log
