"""Serves the files of a folder as one repository until its standard input ends.

In tests/: `python -m support.hub NAME FOLDER [RATE]`.

The first line it prints is the address for HF_ENDPOINT. RATE: bytes per second and connection.
"""

from __future__ import annotations

import sys
from pathlib import Path

from support.hub.server import Hub


def serve(name: str, folder: Path, rate: int | None) -> None:
    with Hub() as hub:
        hub.rate = rate
        hub.add(name, {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()})
        print(hub.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
