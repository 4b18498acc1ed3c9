"""What the gateway makes of an engine's stream, with a server that says what engines were seen to say."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mscli.engines.serving.backends import Server
from mscli.engines.serving.chat_request import RequestError
from mscli.engines.serving.formats.apis import DIALECTS
from mscli.engines.serving.formats.chunks import CHAT

Answers = Callable[..., Server]
ASKED = {"messages": [{"role": "user", "content": "hello"}]}
PIECE = 'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
END = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = "data: [DONE]\n\n"


@pytest.fixture
def engine() -> Iterator[tuple[Answers, list[dict[str, Any]]]]:
    """A function that makes an engine which always answers the same, and what it was asked."""
    seen: list[dict[str, Any]] = []
    said = (200, "")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(said[0])
            self.end_headers()
            self.wfile.write(said[1].encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def make(status: int, text: str, dialect: str = "openai") -> Server:
        nonlocal said
        said = (status, text)
        return Server(server.server_port, "/health", "twin", 512, DIALECTS[dialect])

    yield make, seen
    server.shutdown()
    server.server_close()


def read(backend: Server, **more: Any) -> list[Any]:
    async def all_of_it() -> list[Any]:
        async with aclosing(backend.stream(CHAT, {**ASKED, **more})) as chunks:
            return [each async for each in chunks]

    return asyncio.run(all_of_it())


def test_a_whole_stream_is_passed_on(engine: tuple[Answers, list[dict[str, Any]]]) -> None:
    make, seen = engine
    chunks = read(make(200, PIECE + END + DONE), tool_choice="none", tools=[{"type": "function"}])

    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]
    assert (seen[0]["stream"], "tools" in seen[0]) == (True, False)


def test_vllm_is_asked_in_roles_that_it_knows_and_for_no_longer_reply_than_it_allows(
    engine: tuple[Answers, list[dict[str, Any]]],
) -> None:
    make, seen = engine
    developer = {"role": "developer", "content": "Be brief."}
    read(make(200, PIECE + END + DONE, "vllm"), messages=[developer, *ASKED["messages"]], max_completion_tokens=32_000)

    assert [message["role"] for message in seen[0]["messages"]] == ["system", "user"]
    assert seen[0]["max_completion_tokens"] == 512


@pytest.mark.parametrize(
    ("status", "text", "words", "refused", "code"),
    [
        pytest.param(200, "", "broke off", 502, None, id="no event at all: mistral.rs whose engine died"),
        pytest.param(200, PIECE, "broke off", 502, None, id="no end"),
        pytest.param(200, PIECE + DONE, "broke off", 502, None, id="done without a reason"),
        pytest.param(
            200, "data: Prompt sequence length is greater than 512, perhaps\n\n" + DONE, "(512 tokens)", 400,
            "context_length_exceeded", id="plain text in a stream: mistral.rs",
        ),
        pytest.param(
            400, '{"error":{"message":"This model\'s maximum context length is 512 tokens. However, your prompt '
            'contains 9000 characters (more than 4096 characters, which is the upper bound for 511 input tokens)."}}',
            "request exceeds the available context size (512 tokens)", 400, "context_length_exceeded",
            id="too long, and not counted: vLLM",
        ),
        pytest.param(422, '{"message": "did not match any variant"}', "any variant", 422, None, id="no error object"),
        pytest.param(500, "channel closed", "channel closed", 500, None, id="plain text"),
        pytest.param(
            400, '{"error":{"message":"request (18546 tokens) exceeds the available context size (4096 tokens)"}}',
            "request (18546 tokens) exceeds the available context size (4096 tokens)", 400, "context_length_exceeded",
            id="too long: llama.cpp",
        ),
    ],
)  # fmt: skip
def test_what_is_no_whole_reply_is_an_error(
    engine: tuple[Answers, list[dict[str, Any]]], status: int, text: str, words: str, refused: int, code: str | None
) -> None:
    with pytest.raises(RequestError) as raised:
        read(engine[0](status, text))

    assert words in str(raised.value)
    assert (raised.value.status, raised.value.code) == (refused, code)
