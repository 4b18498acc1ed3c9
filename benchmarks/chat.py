"""What `mscli chat` costs beside a raw HTTP client in the same run: `python benchmarks/chat.py [--rounds 20]`.

One scripted server on this machine answers both in turn. Told as medians over the rounds: milliseconds more to the
first token, milliseconds more for each streamed token, the start of a one-shot chat over bare Python plus the request,
and the share of a core that Markdown takes on a terminal at 60 tok/s. `--check` fails where a limit is missed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import pty
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.instances.instance_records import write_record

from mscli.catalog.sampling import Sampling
from mscli.chat.message import user
from mscli.chat.reply import Target, ask
from mscli.instances.records import Records
from mscli.paths import Places

TOKENS = 400
RATE_S = 60.0
RATED_S = 20.0
LIMITS = {"first token": 30.0, "each token": 1.0, "start": 120.0, "start, CPU": 120.0, "markdown": 5.0}
TEXT = (
    "## A heading\n\nA paragraph with *some* emphasis, `code` and a list of things that come to mind:\n\n"
    "- one thing\n- another thing\n\n```python\nfor number in range(10):\n    print(number)\n```\n\n"
)
TOKEN = [TEXT[at : at + 4] for at in range(0, len(TEXT), 4)]


class Answer(BaseHTTPRequestHandler):
    """Streams Markdown: at once, or at so many tokens a second as the model's name says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        rate = float(body["model"].partition("@")[2] or 0)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        begun, tokens = time.perf_counter(), int(rate * RATED_S) or TOKENS
        for number in range(tokens):
            if rate:
                time.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            self._event({"choices": [{"index": 0, "delta": {"content": TOKEN[number % len(TOKEN)]}}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": tokens}})
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, value: object) -> None:
        data = f"data: {json.dumps(value)}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


def raw(port: int) -> tuple[float, float]:
    """Seconds to the first token and from then to the end, for a client that reads lines and no more."""
    body = json.dumps({"model": "m", "messages": [user("hello")], "stream": True})
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    begun, times = time.perf_counter(), []
    link.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    for line in link.getresponse():
        if line.strip():
            times.append(time.perf_counter())
    link.close()
    return times[0] - begun, times[-1] - times[0]


def ours(port: int) -> tuple[float, float]:
    """The same for mscli's own client, with a listener that does nothing."""
    target = Target("mine", f"http://127.0.0.1:{port}/v1", None, "m", Sampling(None, None, None), False)
    times: list[float] = []
    begun = time.perf_counter()
    ask(target, [user("hello")], lambda _: times.append(time.perf_counter()))
    return times[0] - begun, time.perf_counter() - times[0]


def run(argv: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Seconds that a program takes, and of them seconds of a CPU: on a busy machine only these say something."""
    before, begun = spent_s(), time.perf_counter()
    subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun, spent_s() - before


def spent_s() -> float:
    """Seconds of a CPU that ended children took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bare(port: int) -> list[str]:
    """A Python that makes the same request with what comes with Python."""
    code = (
        "import http.client\n"
        f"link = http.client.HTTPConnection('127.0.0.1', {port})\n"
        'link.request("POST", "/v1/chat/completions", \'{"model": "m", "messages": [], "stream": true}\')\n'
        "link.getresponse().read()\n"
    )
    return [sys.executable, "-c", code]


def markdown_share(env: dict[str, str]) -> float:
    """The share of a core, as a percentage, of a chat on a terminal at RATE_S tok/s, its start left out."""

    def spent(*args: str) -> tuple[float, float]:
        ours_end, theirs = pty.openpty()
        before, begun = spent_s(), time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-m", "mscli", "chat", *args], env={**env, "TERM": "xterm-256color"},
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        threading.Thread(target=lambda: list(_read(ours_end)), daemon=True).start()
        child.wait()
        return spent_s() - before, time.perf_counter() - begun

    whole, took = spent("-i", "rated", "hello")
    start, _ = spent("-i", "mine", "hello")
    return 100 * (whole - start) / took


def _read(end: int) -> Iterator[bytes]:
    while True:
        try:
            block = os.read(end, 65536)
        except OSError:
            return
        if not block:
            return
        yield block


def figures(port: int, env: dict[str, str], rounds: int) -> dict[str, float]:
    """Each figure by the name of its limit: milliseconds, and a percentage for the Markdown."""
    clients: dict[str, Callable[[int], tuple[float, float]]] = {"raw": raw, "ours": ours}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    starts: dict[str, list[tuple[float, float]]] = {"raw": [], "ours": []}
    chat = [sys.executable, "-m", "mscli", "chat", "-i", "mine", "hello"]
    run(chat, env)
    for _ in range(rounds):
        for name, client in clients.items():
            seen[name].append(client(port))
        starts["raw"].append(run(bare(port), env))
        starts["ours"].append(run(chat, env))

    def more(of: dict[str, list[tuple[float, float]]], place: int) -> float:
        return 1000 * statistics.median(b[place] - a[place] for a, b in zip(of["raw"], of["ours"], strict=True))

    return {
        "first token": more(seen, 0),
        "each token": more(seen, 1) / TOKENS,
        "start": more(starts, 0),
        "start, CPU": more(starts, 1),
        "markdown": markdown_share(env),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--check", action="store_true", help="fail where a limit is missed")
    options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        # With compiled modules, as an installed mscli has them.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["MSCLI_HOME"] = folder
        home = Path(folder)
        records = Records(Places(home / "config", home / "state", home / "data"))
        for name, alias in (("mine", "m"), ("rated", f"m@{RATE_S:.0f}")):
            record = write_record(records, name, None, "none", owner="a benchmark", port=server.server_port)
            records.save(replace(record, alias=alias, stand_in=False))
        found = figures(server.server_port, env, options.rounds)
    for name, value in found.items():
        verdict = "" if value <= LIMITS[name] else "  MISSED"
        unit = "% of a core" if name == "markdown" else "ms more"
        print(f"{name:12} {value:8.2f} {unit:12} limit {LIMITS[name]:g}{verdict}")
    return int(options.check and any(value > LIMITS[name] for name, value in found.items()))


if __name__ == "__main__":
    sys.exit(main())
