"""A server that is put together like vLLM's: an API server, its engine core, and the core's worker, in one session.

As measured on vLLM 0.32: core and worker outlive a killed parent; the parent ends with status 0 when its core has died;
each start leaves sockets in TMPDIR. It opens its port once there is no file of the name in HOLD (in its environment).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

POLL_S = 0.02
WORKER = Path(os.environ["TMPDIR"]) / "worker"  # there once the worker runs


def main() -> None:
    role = sys.argv[1]
    if role == "serve":
        api_server(int(sys.argv[sys.argv.index("--port") + 1]))
    elif role == "VLLM::EngineCore":
        worker = start("VLLM::Worker")
        worker.wait()
    else:
        WORKER.touch()
        signal.pause()


def start(role: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, role])


def api_server(port: int) -> None:
    core = start("VLLM::EngineCore")
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(f"{os.environ['VLLM_RPC_BASE_PATH']}/{os.getpid()}")  # a whole path may be too long for it
    threading.Thread(target=lambda: os._exit(core.wait() * 0), daemon=True).start()
    while not WORKER.exists() or Path(os.environ["HOLD"]).exists():
        time.sleep(POLL_S)
    ThreadingHTTPServer(("127.0.0.1", port), Health).serve_forever()


class Health(BaseHTTPRequestHandler):
    """Answers that it is well."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


if __name__ == "__main__":
    main()
