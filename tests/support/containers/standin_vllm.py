"""vLLM's HTTP server as far as mscli and a client of the OpenAI API see it.

`standin_vllm.py ADDRESS PORT IMAGE ...` by the stand-in for docker; `vllm serve MODEL ...` in an image of its own.

Logs what vLLM logs of its start, asks for the key in VLLM_API_KEY, ends on SIGINT and ignores SIGTERM, as a first
process of a container does that has no handler for it. With the flag --crash it ends as vLLM does without memory.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOG = """\
(APIServer pid=1) INFO 11-26 16:00:00 [utils.py:1] vLLM API server version 0.32.0
(EngineCore pid=25) INFO 11-26 16:00:00 [gpu_model_runner.py:1] Starting to load model /weights...
(EngineCore pid=25) INFO 11-26 16:00:00 [default_loader.py:1] Loading weights took 0.01 seconds
(EngineCore pid=25) INFO 11-26 16:00:00 [kv_cache_utils.py:1] GPU KV cache size: 1,048,576 tokens
(EngineCore pid=25) INFO 11-26 16:00:00 [kv_cache_utils.py:1] Maximum concurrency for 2,048 tokens per request: 512.00x
(APIServer pid=1) INFO 11-26 16:00:00 [launcher.py:1] Starting vLLM server on http://0.0.0.0:8000
"""
CRASH = (
    "(EngineCore pid=25) ERROR 11-26 16:00:00 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to "
    "allocate 5.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.10 GiB is free.\n"
)
BIND = """\
docker: Error response from daemon: driver failed programming external connectivity on endpoint x (4a9cf6c3f6a8): \
Error starting userland proxy: listen tcp4 {}:{}: bind: address already in use
"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            return self.answer(200, {})
        return self.answer(200, {"data": [{"id": "tiny-model"}]}) if self.allowed() else None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.allowed():
            return None
        if json.loads(body).get("stream"):
            return self.stream("Hello! This is a stand-in.")
        message = {"role": "assistant", "content": "Hello! This is a stand-in."}
        return self.answer(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": {}})

    def stream(self, text: str) -> None:
        choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
        choices += [{"index": 0, "delta": {}, "finish_reason": "stop"}]
        lines = [f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write("".join([*lines, "data: [DONE]\n\n"]).encode())
        self.close_connection = True

    def allowed(self) -> bool:
        key = os.environ.get("VLLM_API_KEY")
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self.answer(401, {"error": "Unauthorized"})
        return False

    def answer(self, status: int, body: dict[str, object]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


def main(address: str, port: str, *rest: str) -> None:
    if address == "serve":
        address, port = (rest[rest.index(flag) + 1] for flag in ("--host", "--port"))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        server = ThreadingHTTPServer((address, int(port)), Handler)
    except OSError:
        sys.stdout.write(BIND.format(address, port))
        sys.exit(125)
    print(LOG, end="", flush=True)
    if "--crash" in rest:
        sys.exit(CRASH)
    try:
        server.serve_forever(0.02)
    except KeyboardInterrupt:
        print("(APIServer pid=1) INFO 11-26 16:00:00 [launcher.py:1] Shutting down", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
