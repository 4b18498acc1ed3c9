"""A model that says what a test wants, event by event, and keeps what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mscli.instances.records import Records
from mscli.paths import Places
from support.chat.streams import chunk, event
from support.instances.instance_records import PLAN, write_record

DIES = "the connection breaks here"
HANGS = "nothing comes any more"
END = event(
    choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage={"prompt_tokens": 40, "completion_tokens": 9}
)


def reply(*pieces: str, thought: Sequence[str] = (), prompt_tokens: int = 40) -> list[str]:
    """The events of a reply in these pieces."""
    thoughts = [chunk({"reasoning_content": piece}) for piece in thought]
    end = END.replace('"prompt_tokens": 40', f'"prompt_tokens": {prompt_tokens}')
    return [*thoughts, *(chunk({"content": piece}) for piece in pieces), end, "data: [DONE]\n\n"]


class Scripted:
    """`replies`: one for each request, the last one again for all that follow. `asked`: the bodies of the requests."""

    def __init__(self, replies: list[list[str]]) -> None:
        self.replies, self.asked = replies, list[dict[str, Any]]()
        self.over = threading.Event()
        self.gone = threading.Event()
        """Set when a client left while a reply hung."""

    def next(self, body: dict[str, Any]) -> list[str]:
        """The reply to this request."""
        self.asked.append(body)
        return self.replies[min(len(self.asked), len(self.replies)) - 1]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of the last request."""
        return list(self.asked[-1]["messages"])


@contextmanager
def scripted(home: Path, *replies: list[str], context: int = 4096, **record: object) -> Iterator[Scripted]:
    """The instance `mine` of the user with this MSCLI_HOME, which gives these replies."""
    model = Scripted(list(replies))

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            with suppress(OSError):
                for each in model.next(body):
                    if each == DIES:
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    if each == HANGS:
                        self._hang()
                        return
                    self.wfile.write(each.encode("utf-8", "surrogateescape"))

        def _hang(self) -> None:
            self.connection.settimeout(0.1)
            while not model.over.is_set():
                with suppress(TimeoutError):
                    if not self.connection.recv(1):
                        model.gone.set()
                        return

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    records = Records(Places(home / "config", home / "state", home / "data"))
    plan = replace(PLAN, context=context)
    write_record(
        records, "mine", None, "none", owner="a test", port=server.server_port, stand_in=False, plan=plan, **record
    )
    try:
        yield model
    finally:
        model.over.set()
        server.shutdown()
        server.server_close()
