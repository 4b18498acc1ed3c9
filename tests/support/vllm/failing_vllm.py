#!/usr/bin/env python3
"""A program called vllm that dies with what the real one has said, until it is started as it wants to be.

STANDIN_RULES: a JSON list of [pattern, text]. The first pattern that is not found in the command line and environment
ends it with its text; when all are found it answers as a server does. STANDIN_FREES: as it dies, the memory of the
described machine's GPU becomes free, as if another program had ended.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path


def free(path: Path) -> None:
    machine = json.loads(path.read_text())
    machine["gpus"][0]["memory_mib"]["used"] = 1
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps(machine))
    fresh.replace(path)


def main() -> int:
    line = " ".join([*sys.argv, *(f"{name}={value}" for name, value in os.environ.items() if name != "STANDIN_RULES")])
    print("INFO non-default args:", " ".join(sys.argv[1:]), flush=True)
    for pattern, text in json.loads(os.environ.get("STANDIN_RULES", "[]")):
        if not re.search(pattern, line):
            if "STANDIN_FREES" in os.environ:
                free(Path(os.environ["MSCLI_TEST_MACHINE"]))
            print(text, "RuntimeError: Engine core initialization failed. See root cause above.", sep="\n", flush=True)
            return 1
    context = sys.argv[sys.argv.index("--max-model-len") + 1]
    print(f"INFO Using max model len {context}", flush=True)
    with socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1]))) as server:
        while True:
            link, _ = server.accept()
            link.recv(4096)
            link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            link.close()


if __name__ == "__main__":
    sys.exit(main())
