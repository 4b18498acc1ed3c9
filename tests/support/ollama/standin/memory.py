"""The models in memory: one slot for each weights blob, whatever the name, held by a process of its own as Ollama's
`llama-server` is; shown to NVML where the test plays a machine with a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from log import log
from scene import Scene

MIB = 2**20
FOREVER_S = 9.2e9
# A runner outlives a server that is killed, as the real one does; but not for ever where a test leaves it behind.
RUNNER_S = 300


class Left(Exception):
    """The client has gone."""


class Bad(ValueError):
    """A value that Ollama refuses, in its words."""


@dataclass
class Runner:
    """A model in memory. `name`: of the model that started it, whichever use it since; `context`: of one slot."""

    name: str
    blob: str
    size: int
    size_vram: int
    context: int
    expires_s: float
    process: subprocess.Popen[bytes]
    requests: int = 0


def seconds(keep_alive: Any) -> float:
    """A keep_alive: a number of seconds, or a duration such as "5m"; negative is for ever. Raises Bad."""
    if keep_alive is None:
        keep_alive = os.environ.get("OLLAMA_KEEP_ALIVE") or "5m"
        keep_alive = float(keep_alive) if keep_alive.lstrip("-").isdigit() else keep_alive
    if isinstance(keep_alive, bool):
        raise Bad("Unsupported type: 'bool'")
    if isinstance(keep_alive, (int, float)):
        return FOREVER_S if keep_alive < 0 else float(keep_alive)
    units = {"s": 1, "m": 60, "h": 3600}
    digits = keep_alive[:-1].lstrip("-")
    if keep_alive == "0":
        return 0.0
    if keep_alive[-1:] not in units:
        known = keep_alive.lstrip("-").isdigit()
        fault = "missing unit in duration" if known else "invalid duration"
        raise Bad(f'time: {fault} "{keep_alive}"')
    if not digits.replace(".", "", 1).isdigit():
        raise Bad(f'time: invalid duration "{keep_alive}"')
    number = float(keep_alive[:-1]) * units[keep_alive[-1]]
    return FOREVER_S if number < 0 else number


class Memory:
    """What is loaded. With MSCLI_TEST_MACHINE set, the described GPU's used memory follows."""

    def __init__(self, scene: Scene) -> None:
        self._ctx = scene
        self._runners: dict[str, Runner] = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()

    @contextmanager
    def used(self, blob: str) -> Iterator[None]:
        """A request runs: who unloads the model meanwhile has the answer at once; it is out when the request ends."""
        with self._lock:
            if runner := self._runners.get(blob):
                runner.requests += 1
        try:
            yield
        finally:
            if runner:
                with self._lock:
                    runner.requests -= 1

    def load(
        self, name: str, blob: str, context: int, keep_alive: Any, gone: Callable[[], bool] = lambda: False
    ) -> None:
        """Use the runner of this blob where it has this context, else start one in its place. Raises Left."""
        lives_s = seconds(keep_alive)
        with self._loading:
            with self._lock:
                runner = self._runners.get(blob)
                if runner and runner.context == context and runner.process.poll() is None:
                    if keep_alive is not None:
                        runner.expires_s = time.time() + lives_s
                    return
                if runner:
                    self._unload(blob)
                self._make_room()
            self._wait(gone)  # it is not listed meanwhile
            with self._lock:
                self._runners[blob] = self._start(name, blob, context, lives_s)

    def _wait(self, gone: Callable[[], bool]) -> None:
        """For as long as a load takes; one whose client leaves is given up."""
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < self._ctx["load_s"]:
            if gone():
                raise Left
            time.sleep(0.02)

    def _start(self, name: str, blob: str, context: int, lives_s: float) -> Runner:
        size = self._ctx["load_bytes"]
        share = 0.0 if os.environ.get("CUDA_VISIBLE_DEVICES") == "-1" else self._ctx["gpu_share"]
        process = subprocess.Popen(["llama-server", str(RUNNER_S)], executable="/bin/sleep")
        runner = Runner(name, blob, size, int(size * share), context, time.time() + lives_s, process)
        _show_on_gpu(process.pid, runner.size_vram)
        layers, slots = round(41 * share), int(os.environ.get("OLLAMA_NUM_PARALLEL") or 1)
        command = f"llama-server --model {blob} -c {context * slots} -np {slots}"
        log("INFO", "llama_server.go:433", "starting llama-server", cmd=command)
        log(None, "", f"load_tensors: offloaded {layers}/41 layers to GPU")
        log(None, "", f"load_tensors:        CUDA0 model buffer size = {runner.size_vram / MIB:9.2f} MiB")
        log("INFO", "llama_server.go:1362", "llama-server started in 0.05 seconds")
        return runner

    def _make_room(self) -> None:
        """With OLLAMA_MAX_LOADED_MODELS, the model that expires first is put out, without a word."""
        most = int(os.environ.get("OLLAMA_MAX_LOADED_MODELS") or 0) or 3
        while len(self._runners) >= most:
            self._unload(min(self._runners.values(), key=lambda runner: runner.expires_s).blob)

    def unload(self, blob: str) -> None:
        """Take whatever holds this blob out of memory, once no request runs."""
        with self._lock:
            runner = self._runners.get(blob)
            if runner and runner.requests:
                runner.expires_s = 0.0
            else:
                self._unload(blob)

    def kill(self, blob: str) -> None:
        """The runner dies; it stays listed until the next request for its blob."""
        with self._lock:
            if runner := self._runners.get(blob):
                runner.process.kill()
                runner.process.wait()

    def _unload(self, blob: str) -> None:
        if runner := self._runners.pop(blob, None):
            runner.process.kill()
            runner.process.wait()
            _show_on_gpu(runner.process.pid, -runner.size_vram)

    def clear(self) -> None:
        for blob in list(self._runners):
            self.unload(blob)

    def listed(self) -> list[Runner]:
        with self._lock:
            for runner in list(self._runners.values()):
                if runner.expires_s < time.time() and not runner.requests:
                    self._unload(runner.blob)
            return list(self._runners.values())


def _show_on_gpu(pid: int, more_bytes: int) -> None:
    machine = os.environ.get("MSCLI_TEST_MACHINE")
    if not machine or not more_bytes:
        return
    path = Path(machine)
    told = json.loads(path.read_text())
    gpu = told["gpus"][0]
    mib = round(more_bytes / MIB)
    gpu["memory_mib"]["used"] += mib
    others = [process for process in gpu.get("compute", []) if process["pid"] != pid]
    gpu["compute"] = [*others, {"pid": pid, "memory_mib": mib}] if mib > 0 else others
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(told))
    fresh.replace(path)
