"""The hub's HTTP server: routes, answers and byte counts."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from support.hub.faults import API, CORRUPT, CUT, STALL, STATUS, WHOLE, WRONG_RANGE, Fault, Faults
from support.hub.repository import HubFile, Repository, repository

STEP_BYTES = 1 << 16
MODEL = re.compile(r"/api/models/([\w.-]+/[\w.-]+)(?:/(revision|tree|xet-read-token)/([^/]+))?(?:/.*)?")
FILE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
BLOB = re.compile(r"/cdn/([0-9a-f]{64})")


class Hub:
    """A hub on a free loopback port, as a context manager. Large files come from `localhost`, the rest from 127.0.0.1:
    two host names, so that a token that leaks to the CDN shows in `leaked_tokens`.

    `rate`: bytes per second and connection, None for as fast as it goes. `tokens`: known tokens and their right to read
    gated repositories. `cas_url`, `xet_token_url`: where Xet storage and its tokens are said to be. `cas`: a folder for
    Xet storage. `certificate`: a PEM file with key, to speak HTTPS.
    """

    def __init__(self, cas: Path | None = None, certificate: Path | None = None) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults = Faults()
        self.tokens: dict[str, bool] = {}
        self.rate: int | None = None
        self.requests: list[tuple[str, str]] = []
        self.leaked_tokens: list[str] = []
        self.cas_url: str | None = None
        self.xet_token_url: str | None = None
        self.signature = 1
        self._cas, self._certificate = cas, certificate
        self._sent: dict[str, list[tuple[int, int]]] = {}
        self._lock = threading.Lock()
        self._bytes = 0
        self._moved = threading.Condition()
        self.closing = threading.Event()

    def add(self, name: str, contents: Mapping[str, bytes | Path], *, xet: bool = False) -> Repository:
        """Publishes a repository; with `xet`, its large files lie in Xet storage as well."""
        added = self.repositories[name] = repository(name, dict(contents))
        if xet:
            added.xet_hashes = {file.name: self._store(file) for file in added.files.values() if file.lfs}
        return added

    def fault(self, kind: str, file: str = "*", **more: object) -> Fault:
        """Adds a fault."""
        return self.faults.add(Fault(kind, file, **more))  # type: ignore[arg-type]

    def expire_addresses(self) -> None:
        """Every signed address handed out so far is refused from now on."""
        self.signature += 1

    def sent(self, file: HubFile, start: int, end: int) -> None:
        with self._lock:
            self._sent.setdefault(file.name, []).append((start, end))

    def count(self, size: int) -> None:
        with self._moved:
            self._bytes += size
            self._moved.notify_all()

    def wait_for_bytes(self, size: int, deadline_s: float = 20.0) -> None:
        """Returns once `size` more bytes of files have been sent; fails after the deadline."""
        with self._moved:
            until = self._bytes + size
            assert self._moved.wait_for(lambda: self._bytes >= until, deadline_s), f"no {size} bytes in {deadline_s} s"

    def sent_bytes(self, name: str) -> int:
        """Bytes of the file handed to the network so far."""
        with self._lock:
            return sum(end - start for start, end in self._sent.get(name, []))

    def bytes_sent_twice(self, name: str) -> int:
        """Bytes of the file that were sent beyond once each."""
        with self._lock:
            ranges = sorted(self._sent.get(name, []))
        covered = 0
        reach = 0
        for start, end in ranges:
            covered += max(0, end - max(start, reach))
            reach = max(reach, end)
        return sum(end - start for start, end in ranges) - covered

    def forget_counts(self) -> None:
        with self._lock:
            self._sent.clear()
            self.requests.clear()

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        scheme = "http"
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.cdn_url = f"{scheme}://localhost:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _store(self, file: HubFile) -> str:
        from hf_xet import XetSession

        assert self._cas is not None, "a hub with Xet storage needs a folder for it"
        self.cas_url = f"local://{self._cas}"
        commit = XetSession().new_upload_commit(endpoint=self.cas_url)
        upload = commit.start_upload_bytes(file.read(0, file.size))
        commit.wait_to_finish()
        return str(upload.result().xet_info.hash)


@contextmanager
def black_hole() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        return

    def setup(self) -> None:
        super().setup()
        # What lies in the sender's buffer counts as sent: a small one keeps the counts of killed clients honest.
        if self.server_hub.rate is not None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STEP_BYTES)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self) -> None:
        with suppress(ConnectionError, TimeoutError, ssl.SSLError):  # clients of these tests vanish on purpose
            super().handle()

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        hub, path = self.server_hub, unquote(urlsplit(self.path).path)
        with hub._lock:
            hub.requests.append((self.command, path))
        with suppress(ConnectionError, TimeoutError):
            if blob := BLOB.fullmatch(path):
                self._blob(blob[1])
            elif model := MODEL.fullmatch(path):
                self._model(model[1], model[2], model[3])
            elif path == "/api/whoami-v2":
                self._who()
            elif path == "/api/models":
                self._list()
            elif file := FILE.fullmatch(path):
                self._file(*file.groups())
            else:
                self._refuse(404, "", "no such page")

    def _who(self) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token in self.server_hub.tokens:
            self._json({"type": "user", "name": "somebody", "auth": {"type": "access_token"}})
        else:
            self._refuse(401, "", "Invalid username or password.")

    def _list(self) -> None:
        if not self._status_fault(API):
            self._json([{"id": name} for name in self.server_hub.repositories])

    def _allowed(self, name: str, *, file: bool) -> Repository | None:
        """The repository, or None after a refusal was sent."""
        hub = self.server_hub
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        found = hub.repositories.get(name)
        if token and token not in hub.tokens:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif found is None or (found.private and not token):
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif file and found.accepted is not None and token not in found.accepted:
            self._refuse_gate(name, token)
        else:
            return found
        return None

    def _refuse_gate(self, name: str, token: str) -> None:
        said = f"Access to model {name} is restricted."
        if not token:
            self._refuse(401, "GatedRepo", f"{said} You must have access to it and be authenticated. Please log in.")
        elif not self.server_hub.tokens[token]:
            self._refuse(
                403,
                "GatedRepo",
                "Please enable access to public gated repositories in your fine-grained token settings",
            )
        else:
            self._refuse(
                403, "GatedRepo", f"{said} You are not in the authorized list. Visit the page to ask for access."
            )

    def _model(self, name: str, kind: str | None, revision: str | None) -> None:
        if self._status_fault(API):
            return
        found = self._allowed(name, file=False)
        if found is None:
            return
        if revision not in (None, "main", found.commit):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif kind == "tree":
            self._json([_tree_entry(file, found) for file in found.files.values()])
        elif kind == "xet-read-token":
            self._xet_token(self.server_hub.cas_url or "")
        else:
            siblings = [_sibling(file) for file in found.files.values()]
            gated = "auto" if found.accepted is not None else False
            about = {"_id": "0", "id": name, "modelId": name, "sha": found.commit, "private": found.private}
            self._json({**about, "gated": gated, "tags": [], "downloads": 0, "siblings": siblings})

    def _file(self, name: str, revision: str, path: str) -> None:
        found = self._allowed(name, file=True)
        if found is None:
            return
        file = found.files.get(path)
        if revision not in ("main", found.commit):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif file is None:
            self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": found.commit})
        elif file.lfs:
            self._redirect(file, found)
        else:
            self._send(file, {"X-Repo-Commit": found.commit, "ETag": f'"{file.etag}"'})

    def _redirect(self, file: HubFile, found: Repository) -> None:
        hub = self.server_hub
        headers = {
            "X-Repo-Commit": found.commit,
            "X-Linked-Etag": f'"{file.etag}"',
            "X-Linked-Size": str(file.size),
            "Location": f"{hub.cdn_url}/cdn/{file.sha256}?signature={hub.signature}",
        }
        if xet_hash := found.xet_hashes.get(file.name):
            refresh = hub.xet_token_url or f"{hub.url}/api/models/{found.name}/xet-read-token/{found.commit}"
            headers |= {"X-Xet-Hash": xet_hash, "Link": f'<{refresh}>; rel="xet-auth"'}
        self._head(302, {**headers, "Content-Length": "0"})

    def _blob(self, sha256: str) -> None:
        hub = self.server_hub
        if token := self.headers.get("Authorization"):
            hub.leaked_tokens.append(token)
        if parse_qs(urlsplit(self.path).query).get("signature") != [str(hub.signature)]:
            self._refuse(403, "", "the signature has expired")
            return
        for found in hub.repositories.values():
            for file in found.files.values():
                if file.sha256 == sha256:
                    self._send(file, {"ETag": f'"{sha256}"'})
                    return
        self._refuse(404, "", "no such blob")

    def _send(self, file: HubFile, headers: dict[str, str]) -> None:
        start, end, status = 0, file.size, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            start, end, status = int(asked[1]), min(int(asked[2] or file.size - 1) + 1, file.size), 206
        if self.command == "GET" and self._status_fault(file.name, start, end):
            return
        if asked and self.server_hub.faults.strike((WHOLE,), file.name, start, end):
            start, end, status = 0, file.size, 200
        shift = 1 if self.server_hub.faults.strike((WRONG_RANGE,), file.name, start, end) else 0
        if status == 206:
            headers["Content-Range"] = f"bytes {start + shift}-{end - 1}/{file.size}"
        self._head(status, {**headers, "Content-Length": str(end - start), "Accept-Ranges": "bytes"})
        if self.command == "GET":
            self._body(file, start, end)

    def _body(self, file: HubFile, start: int, end: int) -> None:
        hub, at = self.server_hub, start
        fault = hub.faults.strike((CUT, STALL, CORRUPT), file.name, start, end)
        while at < end:
            until = min(end, at + STEP_BYTES, fault.at if fault and fault.at > at else end)
            if fault is not None and fault.at == at:
                if fault.kind != CORRUPT:
                    self._break_off(fault)
                    return
                self.wfile.write(bytes([file.read(at, at + 1)[0] ^ 0xFF]))
                hub.sent(file, at, at + 1)
                at, fault = at + 1, None
                continue
            step = self._step(file, at, until)
            at += step
            hub.count(step)

    def _step(self, file: HubFile, at: int, until: int) -> int:
        hub = self.server_hub
        size = until - at
        if hub.rate is None and isinstance(file.content, Path):
            with file.content.open("rb") as content:
                size = os.sendfile(self.connection.fileno(), content.fileno(), at, size)
        else:
            self.wfile.write(file.read(at, until))
        hub.sent(file, at, at + size)  # before any wait: who got the last of it may look at once
        if hub.rate is not None:
            hub.closing.wait(size / hub.rate)
        return size

    def _break_off(self, fault: Fault) -> None:
        self.close_connection = True
        if fault.kind == STALL:
            self.connection.settimeout(0.05)
            while not self.server_hub.closing.is_set():
                with suppress(TimeoutError):
                    if not self.connection.recv(1):
                        break  # the client has given up
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _status_fault(self, file: str, start: int = 0, end: int = 1) -> bool:
        fault = self.server_hub.faults.strike((STATUS,), file, start, end)
        if fault is not None:
            self._refuse(fault.status, "", "as the fault says", dict(fault.headers))
        return fault is not None

    def _xet_token(self, cas_url: str) -> None:
        """Where Xet storage is: hf_xet reads it from the body, huggingface_hub from the headers."""
        expires = int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": cas_url, "X-Xet-Access-Token": "token", "X-Xet-Token-Expiration": str(expires)}
        self._json({"accessToken": "token", "exp": expires, "casUrl": cas_url}, headers)

    def _json(self, value: object, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self._head(200, {**(headers or {}), "Content-Type": "application/json", "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        told = {"X-Error-Code": code, "X-Error-Message": message, "Content-Length": "0"}
        self._head(status, {**(headers or {}), **{key: value for key, value in told.items() if value}})

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.flush()


def _sibling(file: HubFile) -> dict[str, object]:
    lfs = {"lfs": {"size": file.size, "sha256": file.sha256, "pointerSize": 135}} if file.lfs else {}
    return {"rfilename": file.name, "size": file.size, "blobId": file.blob_id, **lfs}


def _tree_entry(file: HubFile, found: Repository) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "oid": file.blob_id, "size": file.size, "path": file.name}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 135}
    if file.name in found.xet_hashes:
        entry["xetHash"] = found.xet_hashes[file.name]
    return entry
