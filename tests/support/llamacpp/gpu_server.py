#!/usr/bin/env python3
"""A program called llama-server that behaves like one on a GPU: it logs its layers, answers, and holds GPU memory.

The memory is that of the described machine (MSCLI_TEST_MACHINE), which NVML reads anew: it is taken when the server
starts and returned SERVER_RETURNS_S seconds after the server was told to stop, by a process that outlives it.
SERVER_LAYERS: how many layers it says are on the GPU ("3/3").
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

TAKEN_MIB = 900
RELEASE = """
import json, sys, threading
threading.Event().wait(float(sys.argv[2]))
path = sys.argv[1]
machine = json.load(open(path))
machine["gpus"][0]["memory_mib"]["used"] -= int(sys.argv[3])
machine["gpus"][0].pop("compute", None)
import os
open(path + ".new", "w").write(json.dumps(machine))
os.replace(path + ".new", path)
"""


def hold(path: Path) -> None:
    machine = json.loads(path.read_text())
    machine["gpus"][0]["memory_mib"]["used"] += TAKEN_MIB
    machine["gpus"][0]["compute"] = [{"pid": os.getpid(), "memory_mib": TAKEN_MIB}]
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps(machine))
    fresh.replace(path)


def stop(path: Path) -> None:
    wait_s = os.environ.get("SERVER_RETURNS_S", "0")
    command = [sys.executable, "-c", RELEASE, str(path), wait_s, str(TAKEN_MIB)]
    env = {key: value for key, value in os.environ.items() if key != "MSCLI_INSTANCE"}  # the driver, not the engine
    subprocess.Popen(command, start_new_session=True, env=env)
    os._exit(0)


def main() -> None:
    if "--version" in sys.argv:
        print("version: 9999 (abcdef)", file=sys.stderr)
        return
    path = Path(os.environ["MSCLI_TEST_MACHINE"])
    if "--list-devices" in sys.argv:
        print("Available devices:")
        for number, gpu in enumerate(json.loads(path.read_text())["gpus"]):
            print(f"  CUDA{number}: {gpu['name']} (24080 MiB, 23650 MiB free)")
        return
    hold(path)
    signal.signal(signal.SIGTERM, lambda *_: stop(path))
    print("load_tensors: offloaded", os.environ.get("SERVER_LAYERS", "3/3"), "layers to GPU", flush=True)
    port = int(sys.argv[sys.argv.index("--port") + 1])
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            link, _ = server.accept()
            threading.Thread(target=answer, args=(link,)).start()


def answer(link: socket.socket) -> None:
    link.recv(4096)
    link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    link.close()


if __name__ == "__main__":
    main()
