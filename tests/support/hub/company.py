"""What stands between a company's machines and the hub: a proxy, and a root certificate of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


class Proxy:
    """A proxy for CONNECT and for plain HTTP; remembers the first line of what it was asked, and the login.

    `refusal`: the status line it answers instead ("407 Proxy Authentication Required"). `leads_to`: the one place that
    every connection goes to, whatever was asked for.
    """

    def __init__(
        self, listening: socket.socket, refusal: str | None = None, leads_to: tuple[str, int] | None = None
    ) -> None:
        self._refusal, self._leads_to = refusal, leads_to
        self.address = f"127.0.0.1:{listening.getsockname()[1]}"
        self.asked: list[str] = []
        self.logins: list[str] = []
        self._listening = listening
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        lines = head.decode("latin-1").split("\r\n")
        self.asked.append(lines[0])
        self.logins += [line.split(": ")[1] for line in lines if line.lower().startswith("proxy-authorization")]
        if self._refusal:
            client.sendall(f"HTTP/1.1 {self._refusal}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            client.close()
            return
        method, target, _ = lines[0].split(" ")
        host, _, port = (target if method == "CONNECT" else target.split("/")[2]).partition(":")
        server = socket.create_connection(self._leads_to or (host, int(port)))
        if method == "CONNECT":
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            server.sendall(head.replace(f" http://{host}:{port}".encode(), b" ", 1))
        threading.Thread(target=_copy, args=(client, server), daemon=True).start()
        _copy(server, client)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def proxying(refusal: str | None = None, leads_to: tuple[str, int] | None = None) -> Iterator[Proxy]:
    """A proxy on a free loopback port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Proxy(listening, refusal, leads_to)


def root_certificate(folder: Path, *names: str) -> Path:
    """A root of one's own with its key, in one file, for 127.0.0.1, localhost and these names. Needs openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on PATH to make a certificate with")
    made = folder / "root.pem"
    covered = ",".join(("IP:127.0.0.1", "DNS:localhost", *(f"DNS:{name}" for name in names)))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=root of the test", "-addext", f"subjectAltName={covered}"]
    subprocess.run([*command, "-keyout", made, "-out", folder / "only.pem"], check=True, capture_output=True)
    made.write_text(made.read_text() + (folder / "only.pem").read_text())
    return made
