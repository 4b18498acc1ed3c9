"""What a bare machine reaches: `python -m support.machines.internet GIVEN`, as root in the machine's namespaces.

GIVEN/mirror on port 9000: releases and a package index, both as files. GIVEN/hub.json: the hub's repositories (name:
folder), and its `rate` in bytes per second; its address is written to GIVEN/hub. Prints a line once all of it answers.

Port 9002 is what happens to a machine, on the word of the story that is told on it. GET
/after?way=mirror&bytes=1000&does=fill&leaves=4096: once so many more bytes have come that way (mirror, hub),
fill (the home's file system has room for so many more bytes), cut (no network from then on) or kill (mscli, as the
operating system does it). /fill?leaves=0: at once. /room and /network: as before.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from support.hub.server import Hub

MIRROR, FATE = 9000, 9002
CHUNK_BYTES = 1 << 14
ALL_ROOM = "200G"


class Files(SimpleHTTPRequestHandler):
    """A folder's files, from a byte on if a client asks for that; its listings are what an index's pages are."""

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file() or "Range" not in self.headers:
            super().do_GET()
            return
        start, size = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")), path.stat().st_size
        self.send_response(206 if start < size else 416)
        self.send_header("Content-Length", str(max(0, size - start)))
        self.end_headers()
        with path.open("rb") as file:
            file.seek(start)
            self.copyfile(file, self.wfile)


def files(folder: Path, port: int) -> int:
    """Serve a folder on loopback until this process ends; returns the port."""
    server = ThreadingHTTPServer(("127.0.0.1", port), partial(Files, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_port)


class Way:
    """The network between the machine and one server: a relay that counts, and can be cut."""

    def __init__(self, server: int, port: int = 0) -> None:
        self.down, self._server = False, server
        self._after: tuple[int, Callable[[], None]] | None = None
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def after(self, size: int, act: Callable[[], None]) -> None:
        """Do it once `size` more bytes have come from the server."""
        with self._lock:
            self._after = (size, act)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHUNK_BYTES)  # what is under way counts as come
            if self.down:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._server))
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                if counts:
                    self._count(len(data))
                if self.down:
                    break
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _count(self, size: int) -> None:
        with self._lock:
            if self._after is None:
                return
            left, act = self._after
            self._after = (left - size, act) if left > size else None
            if self._after is None:
                act()


class Machine:
    """What can happen to the machine."""

    def __init__(self, given: Path, ways: dict[str, Way]) -> None:
        self._given, self.ways = given, ways

    def fill(self, leaves: int) -> None:
        """Leave room for so many more bytes in the home, which lies in memory."""
        told = os.statvfs(self._given / "home")
        self._resize(str((told.f_blocks - told.f_bfree) * told.f_frsize + leaves))

    def room(self) -> None:
        self._resize(ALL_ROOM)

    def cut(self) -> None:
        for way in self.ways.values():
            way.down = True

    def network(self) -> None:
        for way in self.ways.values():
            way.down = False

    def kill(self) -> None:
        """End mscli as an operating system that has no memory left."""
        for path in (self._given / "root" / "proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if b"bin/mscli\0up" in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def _resize(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self._given / "home")], check=True)


class Fate(BaseHTTPRequestHandler):
    """The story's word for what is to happen."""

    machine: Machine

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        told = dict(parse_qsl(asked.query))
        name = told.get("does") or asked.path.strip("/")
        act = getattr(self.machine, name)
        act = partial(act, int(told["leaves"])) if name == "fill" else act
        if way := told.get("way"):
            self.machine.ways[way].after(int(told["bytes"]), act)
        else:
            act()
        self.send_response(204)
        self.end_headers()


def main(given: Path) -> None:
    """All of it, until this process is ended."""
    ways = {"mirror": Way(files(given / "mirror", 0), MIRROR)}
    told = json.loads((given / "hub.json").read_text()) if (given / "hub.json").exists() else {"repositories": {}}
    with Hub() as hub:
        ways["hub"] = Way(hub.port)
        hub.url, hub.cdn_url = (f"http://{host}:{ways['hub'].port}" for host in ("127.0.0.1", "localhost"))
        hub.rate = told.get("rate")
        for name, folder in told["repositories"].items():
            hub.add(name, {path.name: path for path in sorted(Path(folder).iterdir()) if path.is_file()})
        (given / "hub").write_text(hub.url)
        machine = Machine(given, ways)
        fate = ThreadingHTTPServer(("127.0.0.1", FATE), type("FateHere", (Fate,), {"machine": machine}))
        threading.Thread(target=fate.serve_forever, daemon=True).start()
        print("ready", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
