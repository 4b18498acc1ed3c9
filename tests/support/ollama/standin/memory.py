"""The models in memory: loaded, kept, unloaded, and shown to NVML where the test plays a machine with a GPU."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from log import log
from scene import Scene

MIB = 2**20
FOREVER_S = 10.0**9


@dataclass
class Runner:
    """A model in memory."""

    name: str
    size: int
    size_vram: int
    context: int
    expires_s: float


def seconds(keep_alive: Any) -> float:
    """A keep_alive: a number of seconds, or a duration such as "5m"; negative is for ever."""
    text = str(keep_alive if keep_alive is not None else os.environ.get("OLLAMA_KEEP_ALIVE") or "5m")
    units = {"s": 1, "m": 60, "h": 3600}
    number = float(text[:-1]) * units[text[-1]] if text[-1] in units else float(text)
    return FOREVER_S if number < 0 else number


class Memory:
    """What is loaded. With MSCLI_TEST_MACHINE set, the described GPU's used memory follows."""

    def __init__(self, scene: Scene) -> None:
        self._ctx = scene
        self._runners: dict[str, Runner] = {}
        self._lock = threading.Lock()

    def load(self, name: str, context: int, keep_alive: Any) -> None:
        with self._lock:
            runner = self._runners.get(name)
            if runner and runner.context == context:
                if keep_alive is not None:
                    runner.expires_s = time.time() + seconds(keep_alive)
                return
            if runner:
                self._unload(name)
            size = self._ctx["load_bytes"]
            share = 0.0 if os.environ.get("CUDA_VISIBLE_DEVICES") == "-1" else self._ctx["gpu_share"]
            runner = Runner(name, size, int(size * share), context, time.time() + seconds(keep_alive))
            self._runners[name] = runner
            _show_on_gpu(runner.size_vram)
            layers = round(41 * share)
            log("INFO", "llama_server.go:433", "starting llama-server", cmd=f"llama-server -c {context}")
            log(None, "", f"load_tensors: offloaded {layers}/41 layers to GPU")
            log(None, "", f"load_tensors:        CUDA0 model buffer size = {runner.size_vram / MIB:9.2f} MiB")
            log("INFO", "llama_server.go:1362", "llama-server started in 0.05 seconds")

    def unload(self, name: str) -> None:
        with self._lock:
            self._unload(name)

    def _unload(self, name: str) -> None:
        if runner := self._runners.pop(name, None):
            _show_on_gpu(-runner.size_vram)

    def clear(self) -> None:
        for name in list(self._runners):
            self.unload(name)

    def listed(self) -> list[Runner]:
        with self._lock:
            for runner in list(self._runners.values()):
                if runner.expires_s < time.time():
                    self._unload(runner.name)
            return list(self._runners.values())


def _show_on_gpu(more_bytes: int) -> None:
    machine = os.environ.get("MSCLI_TEST_MACHINE")
    if not machine or not more_bytes:
        return
    path = Path(machine)
    told = json.loads(path.read_text())
    gpu = told["gpus"][0]
    mib = round(more_bytes / MIB)
    gpu["memory_mib"]["used"] += mib
    others = [process for process in gpu.get("compute", []) if process["pid"] != os.getpid()]
    gpu["compute"] = [*others, {"pid": os.getpid(), "memory_mib": mib}] if mib > 0 else others
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(told))
    fresh.replace(path)
