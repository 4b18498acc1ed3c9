"""`mscli check --for agents`: tools that are lost in silence, refusals, and a server that does not respond."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mscli.agents.shapes import LOST, REFUSED, SHAPES, agent_checks
from mscli.catalog.sampling import Sampling
from mscli.chat.reply import Target
from mscli.chat.selftest import OK, SKIPPED, Check

TEXT = {"choices": [{"index": 0, "delta": {"content": "The weather is a fine thing."}}]}
CALL = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "get_weather"}}]}}]}


@contextlib.contextmanager
def server(refuses: str = "", calls: bool = False, fault: str = "") -> Iterator[Target]:
    """A server that answers as told. `refuses`: a role it does not know; `fault`: what it says in the stream."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, b"{}")

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["content-length"])).decode()
            if refuses and f'"{refuses}"' in asked:
                self._send(400, json.dumps({"error": {"message": f"Unknown message role: {refuses}"}}).encode())
                return
            event: Any = {"error": {"message": fault}} if fault else CALL if calls and '"tools"' in asked else TEXT
            self._send(200, f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{made.server_address[1]}/v1"
        yield Target("one", url, "sk-key", "m", Sampling(None, None, None), False, context=4096)
    finally:
        made.shutdown()
        made.server_close()


def checked(target: Target) -> dict[str, Check]:
    return {each.name: each for each in agent_checks(target, stand_in=False, listener=lambda _: None)}


def test_text_in_place_of_a_call_is_a_tool_that_was_lost() -> None:
    with server() as target:
        found = checked(target)
    for shape in SHAPES:
        expected = SKIPPED if shape.tokens else LOST if shape.calls else OK
        assert found[shape.name].status == expected, shape.name


def test_a_refusal_is_told_with_the_servers_words() -> None:
    with server(refuses="developer", calls=True) as target:
        found = checked(target)
    assert found["content as a list"].status == OK
    refused = found["two developer messages"]
    assert (refused.status, refused.seen) == (REFUSED, "HTTP 400: Unknown message role: developer")


def test_an_error_in_the_stream_is_a_refusal_though_the_status_is_200() -> None:
    with server(fault="Conversation roles must alternate") as target:
        found = checked(target)
    assert found["user after user"].status == REFUSED
    assert found["user after user"].seen == "Conversation roles must alternate"


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_a_shape_is_one_that_an_agent_sends(shape: Any) -> None:
    json.dumps(dict(shape.body))
    assert shape.sent_by
    assert shape.body["tools"]
