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
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


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


# What Ollama 0.33.0 said of a conversation that the template inside its GGUF file refuses (shortened).
STRICT = json.dumps(
    {
        "error": json.dumps(
            {
                "error": {
                    "code": 400,
                    "message": "Unable to generate parser for this template. Automatic parser generation failed: \n"
                    "While executing CallExpression at line 6, column 80 in source:\n...ns.index % 2 == 0) %}{{- "
                    'raise_exception("After the optional system message, con...',
                }
            }
        )
    }
)
TALK = [
    {"role": "system", "content": "one"},
    {"role": "developer", "content": "two"},
    {"role": "user", "content": "a"},
    {"role": "user", "content": "b"},
    {"role": "assistant", "content": "c"},
    {"role": "system", "content": "d"},
    {"role": "user", "content": [{"type": "text", "text": "e"}, PICTURE]},
]


def test_what_the_models_own_template_refuses_is_sent_once_more_as_it_takes_it(
    engine: tuple[Answers, list[dict[str, Any]]],
) -> None:
    make, seen = engine
    with pytest.raises(RequestError, match="raise_exception"):
        read(make(400, STRICT), messages=TALK)

    first, second = (request["messages"] for request in seen)
    assert first == TALK
    assert [(message["role"], message["content"]) for message in second] == [
        ("system", "one\n\ntwo"),
        ("user", "a\n\nb"),
        ("assistant", "c"),
        ("user", [{"type": "text", "text": "d\n\n"}, {"type": "text", "text": "e"}, PICTURE]),
    ]


@pytest.mark.parametrize(
    ("said", "messages"),
    [("no such model", TALK), (STRICT, ASKED["messages"])],
    ids=["another refusal", "nothing to put otherwise"],
)
def test_no_other_refusal_is_sent_again(
    engine: tuple[Answers, list[dict[str, Any]]], said: str, messages: list[dict[str, Any]]
) -> None:
    make, seen = engine
    with pytest.raises(RequestError):
        read(make(400, said), messages=messages)

    assert len(seen) == 1
