"""The models folder, in Ollama's layout: manifests by name, blobs by digest, and unfinished blobs with their parts."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scene import Scene

PART_BYTES = 1 << 20
KEPT_S = 3600.0
STEP_BYTES = 1 << 14
CONFIG, MODEL, PARAMS, SYSTEM = (
    "application/vnd.docker.container.image.v1+json",
    *(f"application/vnd.ollama.image.{kind}" for kind in ("model", "params", "system")),
)


def folder() -> Path:
    return Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")


def full_name(name: str) -> str:
    """The model's path below manifests/, with registry, namespace and tag filled in."""
    base, _, tag = name.partition(":")
    base = base if "/" in base else f"library/{base}"
    return f"registry.ollama.ai/{base}/{tag or 'latest'}"


def short_name(path: str) -> str:
    namespace, model, tag = path.split("/")[-3:]
    return f"{model}:{tag}" if namespace == "library" else f"{namespace}/{model}:{tag}"


def published(scene: Scene, name: str) -> list[tuple[dict[str, Any], bytes]] | None:
    """What the registry holds of a model: each layer with its bytes, made up from the name and always the same."""
    entry = scene["registry"].get(name)
    if entry is None:
        return None
    layers = []
    for number, size in enumerate(entry["layers"]):
        content = random.Random(f"{name}/{number}").randbytes(size)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        layers.append(({"mediaType": MODEL, "digest": digest, "size": size}, content))
    config = json.dumps({"capabilities": entry.get("capabilities", ["completion"])}).encode()
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    return [*layers, ({"mediaType": CONFIG, "digest": digest, "size": len(config)}, config)]


class Store:
    """One models folder. Making it fails as Ollama does when the folder may not be written."""

    def __init__(self) -> None:
        self.blobs, self.manifests = folder() / "blobs", folder() / "manifests"
        self.blobs.mkdir(parents=True, exist_ok=True)
        if not os.environ.get("OLLAMA_NOPRUNE"):
            for leftover in self.blobs.glob("*-partial*"):
                if time.time() - leftover.stat().st_mtime > KEPT_S:
                    leftover.unlink()
        self._downloads: dict[str, Download] = {}
        self._lock = threading.Lock()

    def blob(self, digest: str) -> Path:
        return self.blobs / digest.replace(":", "-")

    def put(self, media_type: str, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blob(digest).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def manifest(self, name: str) -> dict[str, Any] | None:
        path = self.manifests / full_name(name)
        return json.loads(path.read_text()) if path.is_file() else None

    def spelling(self, name: str) -> str | None:
        """A model by its name without regard to case, as it was spelt first; None if there is none."""
        wanted = short_name(full_name(name)).lower()
        return next((known for known in self.names() if known.lower() == wanted), None)

    def write_manifest(self, name: str, layers: list[dict[str, Any]]) -> None:
        path = self.manifests / full_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        config = next(layer for layer in layers if layer["mediaType"] == CONFIG)
        rest = [layer for layer in layers if layer["mediaType"] != CONFIG]
        path.write_text(json.dumps({"config": config, "layers": rest}))

    def layers(self, name: str) -> list[dict[str, Any]]:
        manifest = self.manifest(name)
        return [*manifest["layers"], manifest["config"]] if manifest else []

    def text(self, name: str, media_type: str) -> str:
        found = next((layer for layer in self.layers(name) if layer["mediaType"] == media_type), None)
        return self.blob(found["digest"]).read_text() if found else ""

    def parameters(self, name: str) -> dict[str, Any]:
        return json.loads(self.text(name, PARAMS) or "{}")

    def capabilities(self, name: str) -> list[str]:
        return list(json.loads(self.text(name, CONFIG))["capabilities"])

    def own_template(self, name: str) -> bool:
        """Whether the model has a template of Ollama's own, as its library's have, or the one in the weights' file."""
        return json.loads(self.text(name, CONFIG)).get("template", "own") == "own"

    def copy(self, source: str, name: str) -> None:
        """The same layers under another name."""
        self.write_manifest(name, self.layers(source))

    def names(self) -> list[str]:
        paths = (path for path in self.manifests.rglob("*") if path.is_file())
        return sorted(short_name(str(path.relative_to(self.manifests))) for path in paths)

    def create(
        self, name: str, source: str, parameters: dict[str, Any], system: str, template: str | None = None
    ) -> None:
        merged = {**self.parameters(source), **parameters}
        layers = [layer for layer in self.layers(source) if layer["mediaType"] not in (PARAMS, SYSTEM)]
        for layer in layers:
            os.utime(self.blob(layer["digest"]))
        layers.append(self.put(PARAMS, json.dumps(merged).encode()))
        if text := system or self.text(source, SYSTEM):
            layers.append(self.put(SYSTEM, text.encode()))
        if template:
            config = {**json.loads(self.text(source, CONFIG)), "template": "own"}
            layers = [layer for layer in layers if layer["mediaType"] != CONFIG]
            layers.append(self.put(CONFIG, json.dumps(config).encode()))
        self.write_manifest(name, layers)

    def import_files(self, name: str, digests: list[str], template: str) -> None:
        tools = ".Tools" in template or any(b"tools" in self.blob(digest).read_bytes() for digest in digests)
        told = {"capabilities": ["completion", *(["tools"] * tools)], "template": "own" if template else "file"}
        config = self.put(CONFIG, json.dumps(told).encode())
        models = [{"mediaType": MODEL, "digest": d, "size": self.blob(d).stat().st_size} for d in digests]
        self.write_manifest(name, [*models, config])

    def delete(self, name: str) -> bool:
        path = self.manifests / full_name(name)
        if not path.is_file():
            return False
        mine = {layer["digest"] for layer in self.layers(name)}
        path.unlink()
        shared = {layer["digest"] for other in self.names() for layer in self.layers(other)}
        for digest in mine - shared:
            self.blob(digest).unlink(missing_ok=True)
        return True

    def download(self, layer: dict[str, Any], content: bytes, scene: Scene) -> Download:
        """The download of a blob, shared by everybody who asks for it."""
        with self._lock:
            running = self._downloads.get(layer["digest"])
            if running is None or running.over:
                running = self._downloads[layer["digest"]] = Download(self.blob(layer["digest"]), content, scene)
            return running


class Download:
    """One blob on its way from the registry, in parts; stopped when nobody waits for it any more, and kept."""

    def __init__(self, blob: Path, content: bytes, scene: Scene) -> None:
        self.blob, self._content, self._ctx = blob, content, scene
        self.partial = blob.with_name(f"{blob.name}-partial")
        self.done = threading.Event()
        self.stalled_at: int | None = None
        self.again_s: float | None = None
        self._stop = threading.Event()
        self._waiting = 0
        self._lock = threading.Lock()
        if not self.partial.exists():
            self.partial.touch()
            os.truncate(self.partial, len(content))
        self._parts = [self._part(start) for start in range(0, len(content), PART_BYTES)]
        self._thread: threading.Thread | None = None

    @property
    def over(self) -> bool:
        """True once it will fetch no more; a download that is being stopped is waited for."""
        if self._thread is None:
            return False
        if self._stop.is_set():
            self._thread.join()
        return not self._thread.is_alive()

    @property
    def completed(self) -> int:
        return sum(part["Completed"] for part in self._parts)

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Whoever comes first starts it, whoever leaves last (the connection broke) stops it and sees it end: once the
        client knows that its connection is cut, nothing more is written to the folder."""
        with self._lock:
            self._waiting += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._stop.set()
                    self._thread.join()

    def _part(self, start: int) -> dict[str, int]:
        number = start // PART_BYTES
        size = min(PART_BYTES, len(self._content) - start)
        path = self.partial.with_name(f"{self.partial.name}-{number}")
        if path.exists():
            return dict(json.loads(path.read_text()))
        return {"N": number, "Offset": start, "Size": size, "Completed": 0}

    def _run(self) -> None:
        with self.partial.open("r+b") as file:
            for part in self._parts:
                try:
                    if not self._fetch(part, file):
                        return
                finally:
                    self.partial.with_name(f"{self.partial.name}-{part['N']}").write_text(json.dumps(part))
        for part in self._parts:
            self.partial.with_name(f"{self.partial.name}-{part['N']}").unlink()
        self.partial.rename(self.blob)
        self.done.set()

    def _fetch(self, part: dict[str, int], file: Any) -> bool:
        """Fill one part. False when it was stopped."""
        stalled_s = time.monotonic()
        while part["Completed"] < part["Size"]:
            stalled = self.stalled_at is not None and self.completed >= self.stalled_at
            if self._stop.wait(0.01 if stalled else self._pause_s()):
                return False
            if stalled:
                if self.again_s and time.monotonic() - stalled_s > self.again_s:
                    part["Completed"], stalled_s = 0, time.monotonic()
                continue
            stalled_s = time.monotonic()
            start = part["Offset"] + part["Completed"]
            step = self._content[start : part["Offset"] + min(part["Size"], part["Completed"] + STEP_BYTES)]
            file.seek(start)
            file.write(step)
            file.flush()
            with (folder() / "served").open("a") as served:
                served.write(f"{self.blob.name} {start} {len(step)}\n")
            part["Completed"] += len(step)
        return True

    def _pause_s(self) -> float:
        speed = self._ctx["bytes_per_s"]
        return STEP_BYTES / speed if speed else 0.0


def now(at_s: float | None = None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(at_s))
