"""An image of the container engine: whether it is here, and fetching it with progress.

The client pulls, because it knows the user's logins and proxies. It tells bytes only to a terminal, so it is given one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mscli.diagnosis.diagnose import client_failure
from mscli.engines.containers.client import Client, EngineInfo, call, image_id, last_line
from mscli.engines.engine import PLAN, StageListener
from mscli.errors import Code, MscliError
from mscli.inventory.host import free_bytes
from mscli.paths import container_environment
from mscli.weights.progress import COPYING, DONE, DOWNLOADING, Listener, Meter, Progress

STALL_S = 300.0
LARGE_BYTES = 10**9
# What to ask the user about where the registry does not tell: the order of size of an image with CUDA and torch.
TYPICAL_BYTES = 10**10
_EVERY_S = 0.2
_STOP_S = 5.0
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SIZES = r"(?P<done>[\d.]+)\s?(?P<done_unit>[kKMGT]?i?B)\s?/\s?(?P<total>[\d.]+)\s?(?P<total_unit>[kKMGT]?i?B)"
# docker: "3f4d90098f5b: Downloading [==>   ]  12.3MB/45.6MB"; podman: "Copying blob 3f4d9009 [==>--] 1.2MiB / 45MiB"
_LAYER = re.compile(
    r"^(?:Copying blob (?:sha256:)?(?P<blob>[0-9a-f]{6,})|(?P<id>[0-9a-f]{12}):)\s+(?P<state>[A-Za-z ]+?)?\s*"
    rf"(?:\[.*?\]?\s*{_SIZES}.*)?$"
)
_FETCHED = ("Verifying Checksum", "Download complete", "Extracting", "Pull complete", "done")


@dataclass
class _Layer:
    done_bytes: int = 0
    total_bytes: int = 0
    unpacked_bytes: int = 0
    fetched: bool = False


@dataclass
class Layers:
    """What a pull has told of each layer so far."""

    known: dict[str, _Layer] = field(default_factory=dict)

    def hear(self, line: str) -> bool:
        """Take a line of the client's output; True if it tells of a layer."""
        match = _LAYER.match(_ESCAPE.sub("", line).strip())
        if match is None:
            return False
        state = (match["state"] or "").strip()
        if state == "Already exists" or "skipped" in state:
            return True
        layer = self.known.setdefault((match["blob"] or match["id"])[:12], _Layer())
        if match["total"]:
            self._measure(layer, state, match)
        if state.startswith(_FETCHED):
            layer.fetched, layer.done_bytes = True, layer.total_bytes
        if state in ("Pull complete", "done"):
            layer.unpacked_bytes = layer.total_bytes
        return True

    @staticmethod
    def _measure(layer: _Layer, state: str, match: re.Match[str]) -> None:
        done = int(float(match["done"]) * _UNITS[match["done_unit"].lower()])
        layer.total_bytes = max(layer.total_bytes, int(float(match["total"]) * _UNITS[match["total_unit"].lower()]))
        if state == "Extracting":
            layer.unpacked_bytes = max(layer.unpacked_bytes, min(done, layer.total_bytes))
        else:
            layer.done_bytes = max(layer.done_bytes, min(done, layer.total_bytes))

    @property
    def total_bytes(self) -> int:
        """The size of the layers that have told theirs: docker begins them a few at a time."""
        return sum(layer.total_bytes for layer in self.known.values())

    @property
    def done_bytes(self) -> int:
        """How much of them has been fetched."""
        return sum(layer.done_bytes for layer in self.known.values())

    @property
    def unpacked_bytes(self) -> int:
        """How much of them, as fetched, has been unpacked."""
        return sum(layer.unpacked_bytes for layer in self.known.values())

    @property
    def fetched(self) -> bool:
        """Whether all of them are here, and only unpacking is left."""
        return bool(self.known) and all(layer.fetched for layer in self.known.values())


def have_image(
    client: Client,
    engine: EngineInfo,
    image: str,
    listener: StageListener,
    offline: bool,
    agree: Callable[[int], bool] | None,
) -> None:
    """The image is here, fetched first where it was not.

    Blocks for the pull. Raises WEIGHTS_MISSING when it must not be fetched, INTERRUPTED when the user does not want it,
    DISK_FULL or DOWNLOAD_FAILED; details["cause"] says why.
    """
    if image_id(client, image):
        return
    if offline:
        raise not_here(image)
    size = compressed_bytes(client, image)
    _check_room(engine, image, size)
    expected = TYPICAL_BYTES if size is None else size
    if agree and expected > LARGE_BYTES and not agree(expected):
        raise MscliError(Code.INTERRUPTED, "nothing was downloaded", "A profile on native vLLM needs no image.")
    listener.stage(PLAN, f"downloading the image {image}; complete layers are kept if interrupted")
    pull(client, image, listener, size)


def not_here(image: str) -> MscliError:
    """The error of an image that is not here and may not be fetched."""
    return MscliError(
        Code.WEIGHTS_MISSING,
        f"the image {image} is not downloaded",
        f"Leave out --offline, or copy the image: docker save {image} on another machine, docker load here.",
        {"cause": "offline", "image": image},
    )


def compressed_bytes(client: Client, image: str) -> int | None:
    """What the image's layers for this machine take in the registry; None where the client does not tell."""
    named = _manifest(client, image)
    if named and (parts := named.get("manifests")):
        ours = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
        fitting = [part for part in parts if part.get("platform", {}).get("architecture") == ours]
        repository = re.sub(r"(?::[^/@]+)?(?:@.*)?$", "", image)
        named = _manifest(client, f"{repository}@{fitting[0]['digest']}") if fitting else None
    try:
        return sum(int(layer["size"]) for layer in named["layers"]) if named else None
    except (LookupError, TypeError, ValueError):
        return None


def _manifest(client: Client, image: str) -> dict[str, Any] | None:
    said = call(client, "manifest", "inspect", image)
    try:
        found = json.loads(said.out) if said.status == 0 else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _check_room(engine: EngineInfo, image: str, size: int | None) -> None:
    """Raises DISK_FULL where the engine's folder surely cannot take the image: its layers, and them unpacked, which is
    at the very least as much again. A folder that this user cannot see is not looked at."""
    if size is None or not engine.root:
        return
    try:
        free, needed = free_bytes(Path(engine.root)), 2 * size
    except OSError:
        return
    if free < needed:
        raise MscliError(
            Code.DISK_FULL,
            f"{engine.root} has {free / 1e9:.1f} GB free; {image} is {size / 1e9:.1f} GB compressed, and more unpacked",
            "Free disk space: docker system df shows what is stored. Or move `data-root` in /etc/docker/daemon.json.",
            {"cause": "disk_full", "free_bytes": free, "needed_bytes": needed, "path": engine.root},
        )


def pull(client: Client, image: str, listener: Listener, size: int | None = None) -> None:
    """Fetch an image with the client, telling `listener` how far it is. `size`: its bytes, where they are known.

    Blocks until it is here. An interruption ends the client, which keeps whole layers for the next time. Raises
    DOWNLOAD_FAILED or DISK_FULL with the cause, also when nothing has moved for five minutes.
    """
    layers, said = Layers(), [""]
    meters = {stage: Meter(stage, 0) for stage in (DOWNLOADING, COPYING)}
    spoke = 0.0
    with _pulling(client, image) as (child, lines):
        for line in lines:
            if line is not None and not layers.hear(line):
                said.append(_ESCAPE.sub("", line).strip())
            if layers.known and time.monotonic() - spoke > _EVERY_S:
                spoke = time.monotonic()
                listener.progress(_progress(layers, meters, size, image))
        status = child.wait()
    if status != 0:
        raise _failed(image, "\n".join(filter(None, said)))
    listener.progress(Progress(DONE, layers.total_bytes, layers.total_bytes, None, None, image))


def _progress(layers: Layers, meters: dict[str, Meter], size: int | None, image: str) -> Progress:
    stage = COPYING if layers.fetched else DOWNLOADING
    meter = meters[stage]
    meter.total_bytes = max(layers.total_bytes, size or 0) if stage == DOWNLOADING else layers.total_bytes
    return meter.look(layers.unpacked_bytes if stage == COPYING else layers.done_bytes, image)


@contextlib.contextmanager
def _pulling(client: Client, image: str) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[str | None]]]:
    """The client at work on a terminal of its own; interrupted, as by Ctrl-C, when it is left early."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))  # wide enough for docker to tell sizes
    try:
        child = subprocess.Popen(
            [*client.argv, "pull", image],
            env={**container_environment(client.settings), "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
    except OSError as fault:
        os.close(ours)
        raise MscliError(
            Code.ENGINE_MISSING, f"{client.argv[0]} could not be executed: {fault.strerror}", "Reinstall it."
        ) from fault
    finally:
        os.close(theirs)
    try:
        yield child, _lines(ours, image)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        os.close(ours)


def _lines(descriptor: int, image: str) -> Iterator[str | None]:
    """What is written to the terminal, line by line; None about once a second while nothing is. Ends with the client.

    Raises DOWNLOAD_FAILED when nothing has come for `STALL_S`.
    """
    rest, heard = b"", time.monotonic()
    while True:
        ready, _, _ = select.select([descriptor], [], [], 1.0)
        if not ready:
            if time.monotonic() - heard > STALL_S:
                raise MscliError(
                    Code.DOWNLOAD_FAILED,
                    f"nothing of {image} has arrived for {STALL_S:.0f} s",
                    "Run it again: complete layers are kept.",
                    {"cause": "stalled_download"},
                )
            yield None
            continue
        heard = time.monotonic()
        try:
            fresh = os.read(descriptor, 65536)
        except OSError:  # that is how a terminal says that its last writer is gone
            fresh = b""
        if not fresh:
            yield rest.decode(errors="replace")
            return
        *whole, rest = re.split(rb"[\r\n]+", rest + fresh)
        for line in whole:
            yield line.decode(errors="replace")


def _failed(image: str, said: str) -> MscliError:
    cause = client_failure(said)
    code = Code.DISK_FULL if cause and cause.code == "disk_full" else Code.DOWNLOAD_FAILED
    return MscliError(
        code,
        f"the image {image} was not downloaded: {cause.summary if cause else last_line(said)}",
        cause.remedy if cause else f"Try it yourself: docker pull {image}",
        {"cause": cause.code if cause else "unknown", "evidence": list(cause.evidence) if cause else [last_line(said)]},
    )
