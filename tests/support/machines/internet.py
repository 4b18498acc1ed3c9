"""What a bare machine reaches: `python -m support.machines.internet GIVEN`, as root in the machine's network namespace.

GIVEN/mirror on port 9000: releases and a package index, both as files. GIVEN/hub.json: the hub's repositories (name:
folder), and its `rate` in bytes per second; its address is written to GIVEN/hub. Prints a line once all of it answers.
"""

from __future__ import annotations

import json
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from support.hub.server import Hub


class Files(SimpleHTTPRequestHandler):
    """A folder's files; its listings are what an index's pages are."""

    def log_message(self, format: str, *args: object) -> None:
        return


def files(folder: Path, port: int) -> None:
    """Serve a folder on loopback until this process ends."""
    server = ThreadingHTTPServer(("127.0.0.1", port), partial(Files, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main(given: Path) -> None:
    """All of it, until this process is ended."""
    files(given / "mirror", 9000)
    told = json.loads((given / "hub.json").read_text()) if (given / "hub.json").exists() else {"repositories": {}}
    with Hub() as hub:
        hub.rate = told.get("rate")
        for name, folder in told["repositories"].items():
            hub.add(name, {path.name: path for path in sorted(Path(folder).iterdir()) if path.is_file()})
        (given / "hub").write_text(hub.url)
        print("ready", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
