"""A server that streams what a test wants, and the events of a stream."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mscli.catalog.sampling import Sampling
from mscli.chat.reply import Target

STOP = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


def event(**fields: object) -> str:
    return f"data: {json.dumps(fields)}\n\n"


def chunk(delta: object, finish: object = None, **more: object) -> str:
    return event(choices=[{"index": 0, "delta": delta, "finish_reason": finish}], **more)


def stopped(*events: str) -> str:
    return "".join(events) + f"data: {json.dumps(STOP)}\n\ndata: [DONE]\n\n"


@contextmanager
def serving(body: str, kind: str = "text/event-stream") -> Iterator[Target]:
    """A server that answers every chat with this body and closes."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Target("mine", f"http://127.0.0.1:{server.server_port}/v1", None, "m", Sampling(None, None, None), False)
    finally:
        server.shutdown()
        server.server_close()
