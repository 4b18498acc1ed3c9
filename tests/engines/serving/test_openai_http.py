"""The HTTP side of our servers, with a model of a few lines behind it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.engines.odd_requests import FULL, variations
from support.picture import png

from mscli.diagnosis.diagnose import start_failure
from mscli.engines.serving.openai_http import PORT_STATUS, Body, Delta, RequestError, Server, flags, run

KEY = "a-key-of-the-test"


class Parrot:
    """Answers with the last message, word by word. `closed` is set when a reply has ended, by itself or not."""

    formats = ("text", "json_schema")

    def __init__(self) -> None:
        self.started, self.closed, self.whole = threading.Event(), threading.Event(), False

    def reply(self, request: Body) -> Generator[Delta, None, None]:
        text = str(request["messages"][-1].get("content"))
        self.started.set()
        if text == "refuse":
            raise RequestError("not this")
        if text == "fail":
            raise RuntimeError("out of luck")
        try:
            for word in text.split() if text != "endless" else iter(lambda: "again", None):
                if word == "break":
                    raise RuntimeError("broke off")
                yield Delta(content=f"{word} ") if word != "silent" else Delta()
        finally:
            self.closed.set()
        self.whole = True
        yield Delta(finish="stop", prompt_tokens=1, completion_tokens=len(text.split()))


def options(*words: str) -> Any:
    given = ("--model", "m", "--alias", "parrot", "--port", "0", "--context", "9", "--images", "1")
    return flags("test").parse_args([*given, *words])


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


def asked(text: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def chat(server: Server, text: object, **more: Any) -> tuple[int, Any]:
    return send(server, "POST", "/v1/chat/completions", {**asked(text), **more})


def dial(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), 10)


def post(request: object) -> bytes:
    """The bytes of a request."""
    body = json.dumps(request)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()


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
        pytest.param("\x00", {}, 400, "no JSON", id="a zero"),
        pytest.param("[" * 100_000, {}, 400, "no JSON", id="nested without end"),
        pytest.param(
            '{"messages": [{"role": "user", "content": "\\ud800"}]}', {}, 400, "no JSON", id="half a character"
        ),
        pytest.param('{"messages": [{"role": "user", "content": "a"}], "top_p": NaN}', {}, 400, "NaN", id="no number"),
        pytest.param({}, {"Content_Length": "9999999999"}, 413, "at most", id="too long"),
        pytest.param({}, {"Content_Length": "\xb2"}, 411, "known length", id="a length that is none"),
        pytest.param({}, {"Transfer_Encoding": "chunked"}, 411, "known length", id="chunked"),
        pytest.param({"model": "other"}, {}, 404, "this server has 'parrot'", id="another model"),
        pytest.param(asked("refuse"), {}, 400, "not this", id="refused by the model"),
        pytest.param(asked("fail"), {}, 500, "out of luck", id="failed in the model"),
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


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("text", ["endless", "silent " * 10**6], ids=["words", "no words"])
def test_a_client_that_goes_away_ends_the_computing(server: Server, text: str, stream: bool) -> None:
    server.model = parrot = Parrot()
    with dial(server) as link:
        link.sendall(post({**asked(text), "stream": stream}))
        assert parrot.started.wait(10)

    assert parrot.closed.wait(10), "the reply is computed although nobody reads it"
    assert not parrot.whole


def test_a_client_that_left_the_queue_is_not_answered(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    server.model = parrot = Parrot()
    with server.slots, dial(server) as link:
        link.sendall(post(asked("hello")))
    log, deadline = "", time.monotonic() + 10
    while "the client has gone" not in log:
        assert time.monotonic() < deadline, log
        log += capfd.readouterr().err

    assert not parrot.started.is_set()


def test_sixty_clients_at_once_are_all_answered() -> None:
    server = Server(options())
    server.model = Parrot()
    with ExitStack() as open_links:
        links = [open_links.enter_context(dial(server)) for _ in range(60)]
        for link in links:
            link.sendall(post(asked("hello")))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        answers = [link.recv(4096) for link in links]
    server.shutdown()
    server.server_close()

    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param("nonsense", 400, id="no request line"),
        pytest.param("GET /health HTTP/9.9", 400, id="a version to come"),
        pytest.param(f"GET /{'a' * 70_000} HTTP/1.1", 414, id="a long path"),
        pytest.param(f"GET /health HTTP/1.1\r\nX: {'a' * 70_000}", 431, id="a long header"),
        pytest.param("BREW /v1/models HTTP/1.1", 405, id="an unknown method"),
        pytest.param("PUT /v1/models HTTP/1.1", 405, id="a method that is not served"),
    ],
)
def test_what_is_no_request_is_refused_as_json(server: Server, head: str, status: int) -> None:
    with dial(server) as link:
        link.sendall(f"{head}\r\n\r\n".encode())
        link.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: link.recv(4096), b"")).decode()

    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert json.loads(answer.split("\r\n\r\n")[1])["error"]["code"] == status


def test_a_body_that_is_too_long_is_refused_while_it_is_still_sent(server: Server) -> None:
    with dial(server) as link:
        link.sendall(post({})[:-2].replace(b"Content-Length: 2", b"Content-Length: 9999999999") + b" " * 3_000_000)
        answer = link.recv(4096)

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_every_odd_body_is_answered_and_none_is_the_fault_of_the_server(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    server.model = Parrot()
    link = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    statuses = Counter[int]()
    for body in variations(FULL):
        link.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = link.getresponse()
        assert answer.status in (200, 400, 404), body
        assert answer.read()
        statuses[answer.status] += 1
    link.close()

    assert statuses[400] > 500
    assert statuses[200] > 100
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("n", 2, id="two replies"),
        pytest.param("logprobs", True, id="probabilities"),
        pytest.param("top_logprobs", 3, id="probabilities of others"),
        pytest.param("tool_choice", "required", id="a call at any rate"),
        pytest.param("tool_choice", {"type": "function", "function": {"name": "look"}}, id="this call"),
        pytest.param("response_format", {"type": "json_object"}, id="any JSON"),
        pytest.param("logit_bias", {"1": 5}, id="a likelier token"),
        pytest.param("functions", [{"name": "look"}], id="tools as they were called once"),
    ],
)
def test_what_would_change_the_reply_and_cannot_be_had_is_refused(server: Server, field: str, value: object) -> None:
    server.model = Parrot()
    status, text = send(server, "POST", "/v1/chat/completions", {**FULL, field: value})

    assert status == 400
    assert f"`{field}`" in json.loads(text)["error"]["message"]


def test_a_full_request_is_answered(server: Server) -> None:
    server.model = Parrot()

    assert send(server, "POST", "/v1/chat/completions", FULL)[0] == 200


def test_more_images_than_planned_are_refused(server: Server) -> None:
    server.model = Parrot()
    status, text = chat(server, [{"type": "image_url", "image_url": {"url": png()}}] * 2)

    assert (status, "the plan is for 1" in text) == (400, True)


def test_an_image_that_this_machine_would_have_to_fetch_is_refused(server: Server) -> None:
    server.model = Parrot()
    for url in ("http://127.0.0.1:1/cat.png", "file:///etc/passwd", "/etc/passwd"):
        image = {"type": "image_url", "image_url": {"url": url}}
        status, text = send(
            server, "POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": [image]}]}
        )

        assert (status, "as data URLs" in text) == (400, True)


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
    assert start_failure(capfd.readouterr().err, "transformers", PORT_STATUS).code == "port"
