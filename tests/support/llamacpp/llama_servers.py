"""Starts llama.cpp as the lifecycle does, from a plan through the engine's own command, and talks to it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mscli
from mscli.catalog.load import load_one
from mscli.catalog.model import Model
from mscli.catalog.profile import OptionValue, Profile
from mscli.catalog.sampling import Sampling
from mscli.engines.engine import Command, Installation, Serving
from mscli.engines.table import engine
from mscli.paths import shipped_profiles
from mscli.planning.plan import Plan
from mscli.weights.progress import WeightFiles
from support.tiny_models import TinyFiles

DEADLINE_S = 30.0
LOOPBACK = "127.0.0.1"
KEY = "a-key-of-the-test"
LLAMA = engine("llama.cpp")
PACKAGE = Path(mscli.__file__).parent

PLAN = Plan(
    profile="rehearsal",
    engine="llama.cpp",
    model="rehearsal",
    variant="q8_0",
    verdict="safe",
    reasons=(),
    context=2048,
    kv_type="f16",
    tensor_parallel=1,
    images=1,
    users=1,
    gpus=(),
    devices=(),
    memory=(),
    layers_on_gpu=0,
    host_bytes=0,
)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: str

    @property
    def data(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def message(self) -> dict[str, Any]:
        """The assistant's message."""
        assert self.status == 200, self.body
        return dict(self.data["choices"][0]["message"])

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON events of a stream; the stream must have been ended properly."""
        lines = [line.removeprefix("data: ") for line in self.body.splitlines() if line.startswith("data: ")]
        assert lines[-1:] == ["[DONE]"], f"the stream was cut: {self.body!r}"
        return [json.loads(line) for line in lines[:-1]]


@dataclass(frozen=True)
class Server:
    """A started process, ready or not."""

    process: subprocess.Popen[bytes]
    port: int
    log_file: Path

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self.log_file.read_text(errors="replace")

    def request(self, path: str, body: object = None, key: str | None = None) -> Answer:
        """GET, or POST with a body. Raises ConnectionError while nothing listens."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=DEADLINE_S)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, payload, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode())
        finally:
            connection.close()

    @contextmanager
    def stream(self, path: str, body: object) -> Iterator[http.client.HTTPResponse]:
        """An answer whose body has not been read yet."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=DEADLINE_S)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            yield connection.getresponse()
        finally:
            connection.close()

    def preflight(self, path: str, origin: str) -> Mapping[str, str]:
        """The headers with which the server answers a browser that asks for a page of `origin`."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=DEADLINE_S)
        try:
            connection.request("OPTIONS", path, headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
            return dict(connection.getresponse().getheaders())
        finally:
            connection.close()

    def chat(self, content: object, key: str | None = None, **more: object) -> Answer:
        """One user message."""
        messages = [{"role": "user", "content": content}]
        return self.request("/v1/chat/completions", {"messages": messages, "max_tokens": 64, **more}, key)

    def wait_for(self, *statuses: int) -> int:
        """Waits until /health answers with one of these, and for 200 until the log, written later, says so too.

        Fails with the log when the process ends first.
        """
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                status = self.request("/health").status
                if status in statuses and (status != 200 or "model loaded" in self.log):
                    return status
            except ConnectionError:
                pass
            try:
                ended = self.process.wait(timeout=0.01)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"the server ended with {ended}:\n{self.log}")
        raise AssertionError(f"/health did not answer {statuses} within {DEADLINE_S} s:\n{self.log}")

    def stop(self, number: int) -> int:
        """Sends a signal and waits for the end."""
        self.process.send_signal(number)
        return self.process.wait(timeout=DEADLINE_S)


@contextmanager
def spawned(command: Command, port: int, log: Path, limits: str = "") -> Iterator[Server]:
    """Runs `command`, below the shell's `limits` ("ulimit -v 1000000") if there are any; kills it at the end."""
    argv = list(command.argv)
    if limits:
        argv = ["sh", "-c", f'{limits}; exec "$@"', "sh", *argv]
    for path, text in command.files.items():
        path.write_text(text)
    with log.open("wb") as file:
        process = subprocess.Popen(
            argv, env={**os.environ, **command.env}, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        yield Server(process, port, log)
    finally:
        process.kill()
        process.wait(timeout=DEADLINE_S)


@dataclass(frozen=True)
class Rehearsal:
    """How to start: the installation, and the catalogue's rehearsal."""

    found: Installation
    folder: Path
    profile: Profile
    model: Model

    def command(
        self,
        weights: WeightFiles,
        port: int,
        plan: Plan = PLAN,
        *,
        options: Mapping[str, OptionValue] | None = None,
        sampling: Sampling | None = None,
        key_file: Path | None = None,
        like: str = "rehearsal",
    ) -> Command:
        """The engine's own command for this plan. `like`: the profile whose model writes conversations as this one."""
        profile = replace(self.profile, options=options or {})
        _, real = load_one(like, shipped_profiles(), None)
        model = replace(
            self.model, sampling=sampling or self.model.sampling, tokenizer=real.tokenizer, reasoning=real.reasoning
        )
        serving = Serving("test", LOOPBACK, port, "tiny", self.folder, self.folder / "log", key_file)
        return LLAMA.command(plan, profile, model, weights, serving, self.found)

    @contextmanager
    def start(self, weights: WeightFiles, plan: Plan = PLAN, *, limits: str = "", **more: Any) -> Iterator[Server]:
        """A server for `weights`, not waited for."""
        port = more.pop("port", None) or free_port()
        command = self.command(weights, port, plan, **more)
        with spawned(command, port, self.folder / f"{port}.log", limits) as server:
            yield server

    def failure(self, weights: WeightFiles, plan: Plan = PLAN, **more: Any) -> tuple[int, str]:
        """Exit status and log of a start that must fail."""
        with self.start(weights, plan, **more) as server:
            return server.process.wait(timeout=DEADLINE_S), server.log


def weight_files(files: TinyFiles) -> WeightFiles:
    """A tiny model as `ensure` would hand it over."""
    return WeightFiles(str(files.gguf), str(files.projector) if files.projector else None, 0)


def rehearsal(found: Installation, folder: Path) -> Rehearsal:
    """With the catalogue's own profile and model."""
    profile, model = load_one("rehearsal", shipped_profiles(), None)
    return Rehearsal(found, folder, profile, model)


def installations() -> Sequence[str]:
    """The wheel always, and a real llama-server where there is one."""
    return ["wheel", *(["program"] if shutil.which("llama-server") else [])]


def png(width: int = 56, height: int = 56) -> str:
    """A small picture as a data URL."""
    rows = b"".join(
        b"\0" + bytes(value % 256 for x in range(width) for value in (4 * x, 4 * y, 128)) for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()
