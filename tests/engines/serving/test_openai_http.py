"""The HTTP side of our servers, with a model of a few lines behind it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from mscli.engines.serving.openai_http import PORT_STATUS, Body, Delta, RequestError, Server, flags, run
from mscli.engines.transformers.engine import Transformers

KEY = "a-key-of-the-test"


class Parrot:
    """Answers with the last message, word by word; `closed` is set when a reply was not asked for to its end."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def reply(self, request: Body) -> Generator[Delta, None, None]:
        text = request["messages"][-1]["content"]
        if text == "refuse":
            raise RequestError("not this")
        if text == "fail":
            raise RuntimeError("out of luck")
        try:
            for word in text.split() if text != "endless" else iter(lambda: "again", None):
                if word == "break":
                    raise RuntimeError("broke off")
                yield Delta(content=f"{word} ")
        finally:
            self.closed.set()
        yield Delta(finish="stop", prompt_tokens=1, completion_tokens=len(text.split()))


def options(*words: str) -> Any:
    return flags("test").parse_args(["--model", "m", "--alias", "parrot", "--port", "0", "--context", "9", *words])


@pytest.fixture
def server() -> Iterator[Server]:
    """A listening server whose model is still loading."""
    made = Server(options())
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def send(server: Server, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        payload = body if isinstance(body, str) else None if body is None else json.dumps(body)
        kind = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, payload, {**kind, **{key.replace("_", "-"): v for key, v in headers.items()}})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def chat(server: Server, text: str, **more: Any) -> tuple[int, Any]:
    return send(server, "POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **more})


def test_health_is_503_until_the_model_is_loaded(server: Server) -> None:
    before = send(server, "GET", "/health")[0]
    asked = chat(server, "hello")[0]
    server.model = Parrot()

    assert (before, asked, send(server, "GET", "/health")[0]) == (503, 503, 200)


def test_a_reply_whole_and_in_pieces(server: Server) -> None:
    server.model = Parrot()
    whole = json.loads(chat(server, "one two")[1])
    lines = chat(server, "one two", stream=True)[1].strip().split("\n\n")

    assert whole["choices"][0]["message"]["content"] == "one two "
    assert whole["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert [json.loads(line[6:])["choices"][0]["delta"].get("content") for line in lines[:-1]] == ["one ", "two ", None]
    assert lines[-1] == "data: [DONE]"


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        pytest.param("{", {}, 400, "no JSON", id="not JSON"),
        pytest.param([], {}, 400, "JSON object", id="a list"),
        pytest.param("a=b", {"Content_Type": "text/plain"}, 415, "application/json", id="a form, as web pages send"),
        pytest.param({}, {"Content_Length": "999999999999"}, 413, "at most", id="too long"),
        pytest.param({"model": "other"}, {}, 404, "this server has 'parrot'", id="another model"),
        pytest.param({"messages": [{"content": "refuse"}]}, {}, 400, "not this", id="refused by the model"),
        pytest.param({"messages": [{"content": "fail"}]}, {}, 500, "out of luck", id="failed in the model"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(
    server: Server, body: object, headers: dict[str, str], status: int, words: str
) -> None:
    server.model = Parrot()
    got, text = send(server, "POST", "/v1/chat/completions", body, **headers)

    assert got == status
    assert words in json.loads(text)["error"]["message"]
    assert send(server, "GET", "/health")[0] == 200


def test_a_stream_that_fails_ends_with_the_reason_and_without_done(server: Server) -> None:
    server.model = Parrot()
    text = chat(server, "one break", stream=True)[1]

    assert json.loads(text.strip().split("\n\n")[-1][6:])["error"]["message"] == "broke off"


def test_a_client_that_goes_away_ends_the_computing(server: Server) -> None:
    server.model = parrot = Parrot()
    body = json.dumps({"messages": [{"role": "user", "content": "endless"}], "stream": True})
    with socket.create_connection(("127.0.0.1", server.server_port), 10) as link:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        link.sendall(f"{head}\r\n\r\n{body}".encode())
        assert b"again" in link.recv(4096) + link.recv(4096)

    assert parrot.closed.wait(10), "the reply is computed although nobody reads it"


def test_all_but_health_needs_the_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    server = Server(options("--api-key-file", str(tmp_path / "key")))
    server.model = Parrot()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        assert send(server, "GET", "/health")[0] == 200
        assert send(server, "GET", "/v1/models")[0] == 401
        assert chat(server, "hello")[0] == 401
        assert send(server, "GET", "/v1/models", Authorization=f"Bearer {KEY}")[0] == 200
    finally:
        server.shutdown()
        server.server_close()


def test_a_taken_port_is_told_before_the_model_is_loaded(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        run(options("--port", str(taken.getsockname()[1])), lambda: pytest.fail("the model was loaded"))

    assert ended.value.code == PORT_STATUS
    assert Transformers().diagnose(capfd.readouterr().err, PORT_STATUS).code == "port"
