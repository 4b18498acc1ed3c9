"""The HTTP side of our servers, with a model of a few lines behind it."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.engines.odd_requests import FULL, FULL_MESSAGES, FULL_RESPONSES, variations
from support.picture import png

from mscli.diagnosis.diagnose import start_failure
from mscli.engines.serving.access import Keys
from mscli.engines.serving.backends import Backend
from mscli.engines.serving.backends import Server as Engine
from mscli.engines.serving.chat_request import Body, RequestError
from mscli.engines.serving.formats.apis import DIALECTS
from mscli.engines.serving.formats.chunks import BROKE_OFF, Chunk, chunk, usage
from mscli.engines.serving.gateway import PORT_STATUS, Http, listen, main
from mscli.engines.serving.openai_http import Front

KEY = "a-key-of-the-test"


class Parrot:
    """Answers with the last message, word by word. `closed` is set when a reply has ended, by itself or not."""

    formats = ("text", "json_schema")
    honors = ()

    def __init__(self) -> None:
        self.started, self.closed, self.whole = threading.Event(), threading.Event(), False
        self.well, self.seen = True, list[Body]()

    async def healthy(self) -> bool:
        return self.well

    async def stream(self, path: str, request: Body) -> AsyncGenerator[Chunk, None]:
        text = str(request["messages"][-1].get("content"))
        self.seen.append(request)
        self.started.set()
        if text == "refuse":
            raise RequestError("not this")
        if text == "fail":
            raise RequestError("out of luck", 500)
        try:
            for word in text.split() if text not in ("endless", "silent") else iter(lambda: "again", None):
                if word == "break":
                    raise RequestError(f"{BROKE_OFF} (broke off)", 502)
                await asyncio.sleep(0 if text != "silent" else 60)
                yield chunk({"content": f"{word} "})
        finally:
            self.closed.set()
        self.whole = True
        yield chunk({}, "stop", **usage(1, len(text.split())))


class Server:
    """The application on a port of its own. `model` None: it is still loading."""

    def __init__(self, key_file: Path | None = None, backend: Backend | None = None, **more: Any) -> None:
        self.parrot = Parrot()
        self.front = Front(backend or self.parrot, "parrot", Keys(key_file), images=1, **more)
        self.http = Http(self.front)
        self.listening = listen("127.0.0.1", 0)
        self.server_port = self.listening.getsockname()[1]
        self._thread = threading.Thread(target=self.http.run, args=([self.listening],), daemon=True)

    @property
    def model(self) -> Parrot | None:
        return self.parrot if self.front.ready else None

    @model.setter
    def model(self, parrot: Parrot) -> None:
        self.parrot = self.front.backend = parrot
        self.front.ready = True

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.http.should_exit = self.http.force_exit = True
        self._thread.join(10)
        self.listening.close()


@contextmanager
def running(key_file: Path | None = None, **more: Any) -> Iterator[Server]:
    made = Server(key_file, **more)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def server() -> Iterator[Server]:
    """A listening server whose model is still loading."""
    with running() as made:
        yield made


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
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


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
        pytest.param({}, {"Content_Length": "\xb2"}, 400, "cannot be read", id="a length that is none"),
        pytest.param("zz\r\n", {"Transfer_Encoding": "chunked"}, 400, "cannot be read", id="chunks that are none"),
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

    assert json.loads(text.strip().split("\n\n")[-1][6:])["error"]["message"].endswith("(broke off)")


def test_the_other_apis_stream_events_with_names(server: Server) -> None:
    server.model = Parrot()
    for path, body, first, last in (
        ("/v1/responses", {"input": "one"}, "response.created", "response.completed"),
        ("/v1/messages", {"max_tokens": 9, **asked("one")}, "message_start", "message_stop"),
    ):
        blocks = send(server, "POST", path, {**body, "stream": True})[1].strip().split("\n\n")
        names = [block.split("\n")[0].removeprefix("event: ") for block in blocks]

        assert names == [json.loads(block.split("\ndata: ")[1])["type"] for block in blocks]
        assert (names[0], names[-1]) == (first, last)
        assert send(server, "POST", path, body)[0] == 200


@pytest.mark.parametrize(
    ("path", "last"), [("/v1/responses", "response.failed"), ("/v1/messages", "error")], ids=["responses", "messages"]
)
def test_a_stream_of_the_other_apis_that_fails_says_so_last(server: Server, path: str, last: str) -> None:
    server.model = Parrot()
    body = {"input": "one break", "max_tokens": 9, **asked("one break"), "stream": True}
    event = send(server, "POST", path, body)[1].strip().split("\n\n")[-1]

    assert event.split("\n")[0] == f"event: {last}"
    assert "(broke off)" in event


def test_the_other_apis_get_the_models_own_sampling_and_their_own_errors() -> None:
    with running(sampling={"temperature": 0.15}) as server:
        server.model = Parrot()
        send(server, "POST", "/v1/responses", {"input": "one"})
        send(server, "POST", "/v1/messages", {"max_tokens": 9, "temperature": 0.7, **asked("two")})
        refused = json.loads(send(server, "POST", "/v1/messages", {**asked("x"), "model": "other"})[1])
        counted = send(server, "POST", "/v1/messages/count_tokens", asked("x"))

    assert [each["temperature"] for each in server.parrot.seen] == [0.15, 0.7]
    assert (refused["type"], refused["error"]["type"]) == ("error", "not_found_error")
    assert (counted[0], json.loads(counted[1])["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("text", ["endless", "silent"], ids=["words", "no words"])
def test_a_client_that_goes_away_ends_the_computing(server: Server, text: str, stream: bool) -> None:
    server.model = parrot = Parrot()
    with dial(server) as link:
        link.sendall(post({**asked(text), "stream": stream}))
        assert parrot.started.wait(10)

    assert parrot.closed.wait(10), "the reply is computed although nobody reads it"
    assert not parrot.whole


def test_a_client_that_does_not_read_is_left(capfd: pytest.CaptureFixture[str]) -> None:
    with running(silence_s=0.2) as server, dial(server) as link:
        server.model = parrot = Parrot()
        link.sendall(post({**asked("endless"), "stream": True}))

        assert parrot.closed.wait(30), "it is computed for a client that reads nothing"
        log, deadline = "", time.monotonic() + 10
        while "does not read" not in log:
            assert time.monotonic() < deadline, log
            log += capfd.readouterr().err
        assert "Traceback" not in log


def test_a_client_that_does_not_send_the_rest_is_told() -> None:
    with running(silence_s=0.2) as server, dial(server) as link:
        server.model = Parrot()
        link.sendall(post(asked("hello"))[:-3])

        assert link.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_left_the_queue_is_not_answered(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    server.model = parrot = Parrot()
    with dial(server) as first:
        first.sendall(post(asked("silent")))
        assert parrot.started.wait(10)
        with dial(server) as link:
            link.sendall(post(asked("hello")))
            eventually(lambda: server.front.waiting == 1)
        log, deadline = "", time.monotonic() + 10
        while "the client has gone" not in log:
            assert time.monotonic() < deadline, log
            log += capfd.readouterr().err

    assert [request["messages"][0]["content"] for request in parrot.seen] == ["silent"]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_more_clients_than_may_wait_are_told_when_to_come_back() -> None:
    with running(queue=1) as server, ExitStack() as open_links:
        server.model = Parrot()
        for waiting in (0, 1):
            link = open_links.enter_context(dial(server))
            link.sendall(post(asked("silent")))
            assert server.parrot.started.wait(10)
            eventually(lambda number=waiting: server.front.waiting == number)  # type: ignore[misc]
        link = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        link.request("POST", "/v1/chat/completions", json.dumps(asked("hi")), {"Content-Type": "application/json"})
        answer = link.getresponse()

        assert (answer.status, answer.getheader("Retry-After")) == (429, "5")
        assert "1 requests are waiting" in json.loads(answer.read())["error"]["message"]
        link.close()


def test_what_the_client_leaves_out_is_the_models_own() -> None:
    with running(sampling={"temperature": 0.15, "top_p": 0.9}) as server:
        server.model = Parrot()
        chat(server, "one")
        chat(server, "two", temperature=0.7, top_p=None)

    assert [(each["temperature"], each["top_p"]) for each in server.parrot.seen] == [(0.15, 0.9), (0.7, 0.9)]


def test_a_body_in_chunks_is_read(server: Server) -> None:
    server.model = Parrot()
    link = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    body = json.dumps(asked("hello")).encode()
    link.request(
        "POST", "/v1/chat/completions", iter([body[:9], body[9:]]), {"Content-Type": "application/json"},
        encode_chunked=True,
    )  # fmt: skip

    assert link.getresponse().status == 200
    link.close()


def test_an_engine_that_no_longer_answers_is_not_healthy(server: Server) -> None:
    server.model = Parrot()
    server.parrot.well = False

    assert send(server, "GET", "/health")[0] == 503


def test_ollamas_own_api_without_its_engine_is_a_bad_gateway() -> None:
    gone = Engine(1, "/api/version", "parrot", 512, DIALECTS["ollama"])
    with running(backend=gone) as server:
        server.front.ready = True
        for method, path, body in (("GET", "tags", None), ("POST", "chat", asked("hi")), ("POST", "show", {})):
            status, text = send(server, method, f"/api/{path}", body)

            assert (status, "does not answer" in json.loads(text)["error"]) == (502, True)


def test_sixty_clients_at_once_are_all_answered() -> None:
    server = Server()
    server.model = Parrot()
    with ExitStack() as open_links:
        links = [open_links.enter_context(dial(server)) for _ in range(60)]
        for link in links:
            link.sendall(post(asked("hello")))
        server.start()
        answers = [link.recv(4096) for link in links]
    server.stop()

    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param("nonsense", 400, id="no request line"),
        pytest.param(f"GET /{'a' * 1_000_000} HTTP/1.1", 400, id="a long path"),
        pytest.param(f"GET /health HTTP/1.1\r\nX: {'a' * 1_000_000}", 400, id="a long header"),
        pytest.param("BREW /v1/models HTTP/1.1", 405, id="an unknown method"),
        pytest.param("PUT /v1/models HTTP/1.1", 405, id="a method that is not served"),
    ],
)
def test_what_is_no_request_is_refused_as_json(server: Server, head: str, status: int) -> None:
    with dial(server) as link:
        link.sendall(f"{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: link.recv(4096), b"")).decode()

    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert json.loads(answer.split("\r\n\r\n")[1])["error"]["code"] == status


def test_a_body_that_is_too_long_is_refused_while_it_is_still_sent(server: Server) -> None:
    server.model = Parrot()
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
    with running(tmp_path / "key") as server:
        server.model = Parrot()
        assert send(server, "GET", "/health")[0] == 200
        assert send(server, "GET", "/v1/models")[0] == 401
        assert send(server, "GET", "/nothing")[0] == 401
        assert chat(server, "hello")[0] == 401
        assert send(server, "GET", "/v1/models", Authorization=f"Bearer {KEY}")[0] == 200
        assert send(server, "GET", "/v1/models", Authorization="Bearer ")[0] == 401


def test_keys_are_changed_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "key"

    def statuses(server: Server) -> list[int]:
        return [send(server, "GET", "/v1/models", Authorization=f"Bearer {key}")[0] for key in ("one", "two", "three")]

    with running(file) as server:
        assert statuses(server) == [401, 401, 401]  # there is no file
        file.write_text("one\ntwo\n")
        assert statuses(server) == [200, 200, 401]
        file.write_text("three\n")
        assert statuses(server) == [401, 401, 200]
        file.write_text("\n")
        assert statuses(server) == [401, 401, 401]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "192.168.0.9:8000"}, 200),
        ({"Host": "localhost:8000", "Origin": "http://localhost:3000"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "vscode-webview://1a2b"}, 200),
    ],
)
def test_without_a_key_no_page_from_elsewhere_is_served(server: Server, headers: dict[str, str], status: int) -> None:
    server.model = Parrot()

    assert send(server, "GET", "/v1/models", **headers)[0] == status


def test_a_taken_port_is_told_before_the_engine_is_started(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = ["--kind", "library", "--alias", "parrot", "--context", "9", "--port", str(taken.getsockname()[1])]
        with pytest.raises(SystemExit) as ended:
            main([*flags, "--", "touch", str(tmp_path / "started")])

    assert ended.value.code == PORT_STATUS
    assert start_failure(capfd.readouterr().err, "transformers", PORT_STATUS).code == "port"
    assert not (tmp_path / "started").exists()


# Path -> a good request, and of what else nothing may be made of a field of it.
APIS: dict[str, tuple[dict[str, Any], str, list[Any]]] = {
    "/v1/chat/completions": (FULL, "messages", ["a"]),
    "/v1/responses": (FULL_RESPONSES, "input", [[{"type": "function_call_output", "output": 1}]]),
    "/v1/messages": (
        FULL_MESSAGES,
        "messages",
        ["a", [{"role": "user", "content": [{"type": "tool_result", "content": 1}]}]],
    ),
}


def malformed(path: str, number: int) -> list[bytes]:
    """Bodies that are no request, made from a good one by a fixed seed: cut, filled with noise, with a part doubled."""
    whole, field, more = APIS[path]
    full = {name: value for name, value in whole.items() if name != "model"}
    draw, good = random.Random(18), json.dumps(full).encode()

    def one() -> bytes:
        at, length = draw.randrange(1, len(good) - 1), draw.randrange(1, 40)
        noise = draw.randbytes(length)
        wrong = draw.choice([1, {}, [], [7], [{"role": noise.hex()}], *more])
        kinds = (
            good[:at],
            noise + good,
            good[:at] + bytes([draw.randrange(32)]) + b"\xff" + good[at:],
            good + good[:at],
            b"[" * draw.randrange(1, 5000),
            f'{{"{field}":'.encode() * draw.randrange(1, 2000),
            json.dumps(draw.choice([1, "a", [full], None, True])).encode(),
            json.dumps({**full, field: wrong}).encode(),
        )
        return draw.choice(kinds)

    return [one() for _ in range(number)]


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize("bodies", [100, pytest.param(1000, marks=pytest.mark.rounds)])
def test_malformed_bodies_are_refused_and_each_ones_neighbor_is_answered(
    server: Server, capfd: pytest.CaptureFixture[str], path: str, bodies: int
) -> None:
    server.model = Parrot()
    link, neighbor = (http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30) for _ in range(2))
    kind = {"Content-Type": "application/json"}
    good = json.dumps({"max_tokens": 9, **asked("hello"), "input": "hello"})
    for body in malformed(path, bodies):
        link.request("POST", path, body, kind)
        neighbor.request("POST", path, good, kind)
        answer = link.getresponse()
        assert 400 <= answer.status < 500, body
        assert "message" in json.loads(answer.read())["error"], body
        beside = neighbor.getresponse()
        assert beside.status == 200, body
        assert beside.read()
    link.close()
    neighbor.close()

    assert "Traceback" not in capfd.readouterr().err
