"""A proxy between an agent and a server: it passes everything on, and keeps what was asked and what came back."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PASSED_ON = ("content-type", "authorization", "x-api-key", "anthropic-version", "accept")


@dataclass
class Exchange:
    """One request and its answer as it was sent, streams included."""

    path: str
    asked: Any
    status: int = 0
    answer: str = ""


@dataclass
class Recorder:
    """What went through. `port`: where the proxy listens."""

    port: int = 0
    exchanges: list[Exchange] = field(default_factory=list)

    def calls(self) -> bool:
        """Whether the model called a tool in one of the answers."""
        return any(word in each.answer for each in self.exchanges for word in ('"tool_calls"', '"function_call"'))

    def results(self) -> bool:
        """Whether the agent sent the result of a tool call back."""
        said = (json.dumps(each.asked) for each in self.exchanges)
        return any('"role": "tool"' in text or '"function_call_output"' in text for text in said)


@contextlib.contextmanager
def recording(port: int, tools: bool = True) -> Iterator[Recorder]:
    """A proxy in front of the server on `port` of this machine. `tools` False: it leaves out those of the requests, so
    that the scripted model, which calls one whenever it can, answers in words."""
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            exchange = Exchange(self.path, json.loads(body) if body.startswith(b"{") else None)
            recorder.exchanges.append(exchange)
            if not tools and exchange.asked:
                less = {name: value for name, value in exchange.asked.items() if name not in ("tools", "tool_choice")}
                body = json.dumps(less).encode()
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            headers = {name: value for name, value in self.headers.items() if name.lower() in PASSED_ON}
            link.request(self.command, self.path, body or None, headers)
            got = link.getresponse()
            exchange.status = got.status
            self.send_response(got.status)
            self.send_header("content-type", got.headers.get("content-type") or "application/json")
            self.send_header("connection", "close")
            self.end_headers()
            while block := got.read1(65536):
                exchange.answer += block.decode(errors="replace")
                self.wfile.write(block)
                self.wfile.flush()
            link.close()

        do_GET = do_POST = _pass_on

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorder.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
