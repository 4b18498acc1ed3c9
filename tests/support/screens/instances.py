"""What the screens of instances show: one that answers, one that crashed, one that was stopped, and weights."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mscli.instances.process import Identity, boot_id, identify
from mscli.instances.records import Records
from mscli.paths import places
from mscli.planning.plan import GpuMemory
from support.instances.instance_records import PLAN, write_record

COMMANDS = tuple(
    """status|status --watch|status --all|status small-q4|status old|status mine|status nobody|env small-q4
    launch|launch vibe small-q4 --print|launch emacs|logs mine|check --for nobody
    logs mine -n 2|logs mine --grep memory|logs nobody|chat -i small-q4 "hello"|check small-q4|chat hello|env|weights
    weights --all|weights prune --dry-run|weights prune|down nobody|profiles show rehearsal|profiles show nope
    profiles validate|up nope|up small-q4 --kv q9|nope|doctor --log mine|doctor --log nothing|plan --on 'RTX 9999'
    plan small-q4 --on 'RTX 3090' --price 2/hour|plan small-bf16 --on all --price 1/hour|plan --on list
    |ps|ls|rm mine|stop nobody|weigths|version|help oom_kv|help nope
    completion tcsh|config|config set port 8000|config set prot 1|config set price 3/fortnight|config list
    config get port|config get price|config unset port|service|service status|service install nobody
    service remove nobody|restart nobody|pull nope|engines install nope|profiles new own --from nope
    profiles update nope""".replace("\n    ", "|").split("|")
)
GIB = 2**30
LOG = """INFO 11-29 20:33:11 [api_server.py:1800] vLLM API server version 0.32.0
INFO 11-29 20:33:19 [gpu_model_runner.py:1843] Starting to load model
ERROR 11-29 20:33:30 [core.py:600] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 320.00 MiB. GPU 0 has a total capacity of 23.52 GiB of which 129.44 MiB is free.
"""  # noqa: E501 (a line of vLLM)
MEMORY = GpuMemory(
    0, "GPU-1", "NVIDIA GeForce RTX 4090", 24 * GIB, 23 * GIB, GIB, 13 * GIB, GIB, 7 * GIB, GIB, 0, GIB, GIB
)
CACHED = (
    (
        "bartowski/mistralai_Mistral-Small-3.1-24B-Instruct-2503-GGUF",
        "mistralai_Mistral-Small-3.1-24B-Instruct-2503-Q4_K_M.gguf",
    ),
    ("RedHatAI/Mistral-Small-3.1-24B-Instruct-2503-FP8-dynamic", "model-00001-of-00006.safetensors"),
)


class Model(BaseHTTPRequestHandler):
    """An engine's server that answers everything at once."""

    def do_GET(self) -> None:
        self._send(b"{}", "application/json")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        call = {"index": 0, "id": "a", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
        delta = {"tool_calls": [call]} if asked.get("tools") else {"content": "Hello! How can I help you today?"}
        events: tuple[dict[str, object], ...] = (
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if asked.get("tools") else "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 400, "completion_tokens": 9}},
        )
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        self._send(body.encode(), "text/event-stream")

    def log_message(self, *_: object) -> None:
        """Nothing is said."""

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """A server to which a client that closes early is nothing to tell of."""

    def handle_error(self, *_: object) -> None:
        """Nothing is said."""


def prepare(user: Path) -> None:
    """Put the instances and the weights there, and let the one that runs answer."""
    shutil.rmtree(user, ignore_errors=True)
    user.mkdir(parents=True)
    server = Server(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    records, now, own = Records(places()), time.time(), identify(os.getpid())
    gpu = replace(PLAN, profile="small-q4", engine="ollama", context=49664, gpus=(0,), memory=(MEMORY,))
    write_record(
        records, "small-q4", own, "none", plan=gpu, title="Mistral Small 3.1 24B Instruct", stand_in=False,
        alias="mistral-small-3.1", engine_version="0.30.11", port=server.server_port, since=now - 7530,
        capabilities=("tools",),
    )  # fmt: skip
    dead = Identity(2**22 - 1, 1, boot_id())
    vllm = replace(PLAN, profile="small-fp8", engine="vllm", context=98304, gpus=(0, 1), memory=(MEMORY,))
    crashed = write_record(records, "mine", dead, "none", plan=vllm, since=now - 90030, stand_in=False, port=8001)
    crashed.log.write_text(LOG)
    write_record(records, "old", dead, "none", since=now - 900030, stopped_at=now - 800000, port=8002)
    for repository, file in CACHED:
        snapshot = user / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        if file.endswith(".gguf"):  # of the other one nobody knows which revision it is
            (snapshot.parents[1] / "refs").mkdir()
            (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
        blob = snapshot.parents[1] / "blobs" / "1"
        blob.parent.mkdir()
        with blob.open("wb") as held:
            held.truncate(14 * GIB)
        os.utime(blob, (now - 5 * 86400 - 7200, now - 5 * 86400 - 7200))
        (snapshot / file).symlink_to(blob)
