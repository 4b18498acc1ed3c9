"""Where the program `ollama` is, and how to get its official release into mscli's own folder: fetched, checked against
the published hash, unpacked. No root."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

from mscli.engines.engine import Installation, Offer
from mscli.engines.installed import GpuCode, ask, gpu_code
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.inventory.inventory import Inventory
from mscli.paths import on_path, places, releases
from mscli.weights.progress import Listener

NAME = PROGRAM = "ollama"
NOBODY = "127.0.0.1:0"
VERSION_TIMEOUT_S = 5.0
# The release that `install` takes.
VERSION = "0.32.15"
# What the archive has, and what it takes of the disk together with its unpacked content.
ARCHIVE_BYTES, ROOM_BYTES = 2 * 10**9, 6 * 10**9
RELEASES = "https://github.com/ollama/ollama/releases/download"
CHECKSUMS = "sha256sum.txt"
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
PAGE = "https://github.com/ollama/ollama/releases"
OFFLINE = "install Ollama from another machine's download (https://ollama.com/download), or use a profile on llama.cpp."


@frozen
class Release:
    """One version of Ollama for this machine. `base`: the folder of all releases; `machine`: amd64 or arm64."""

    version: str
    base: str
    machine: str

    @property
    def archive(self) -> str:
        """The archive's name in the release."""
        return f"ollama-linux-{self.machine}.tar.zst"

    def url(self, name: str) -> str:
        """Where a file of the release lies."""
        return f"{self.base}/v{self.version}/{name}"


def locate() -> Installation:
    """`ollama` on PATH, else the copy that mscli installed. Waits at most VERSION_TIMEOUT_S for its version."""
    own = places().engines / NAME / "bin" / PROGRAM
    found = on_path(PROGRAM) or (str(own) if own.is_file() else None)
    if found is None:
        raise MscliError(
            Code.ENGINE_MISSING,
            f"Ollama was not found: no server answers, no {PROGRAM} on PATH, none in {own.parent}",
            "To install it: mscli engines install ollama (no root needed), or see https://ollama.com/download. "
            "Without it: a profile on llama.cpp, for example mscli up small-gguf-q4",
        )
    path = Path(found).absolute()
    kind = "own" if path == own else "program"
    code = _gpu_code(path)
    return Installation(NAME, (str(path),), client_version(path), kind, path, gpu=code.found, cpu=True)


def _gpu_code(program: Path) -> GpuCode:
    """The GPU code of the libraries that lie in lib/ollama beside the program's folder; one that has none there may
    have them anywhere."""
    libraries = program.resolve().parent.parent / "lib" / NAME
    if not libraries.is_dir():
        return GpuCode(None)
    backends = [libraries, *(path for path in libraries.iterdir() if path.is_dir())]
    return gpu_code(program, *backends, inside=False)


def installed() -> Installation | None:
    """The copy that would be started, None if there is none: an adopted server needs none."""
    try:
        return locate()
    except MscliError:
        return None


def offer(_device: str, _inventory: Inventory) -> Offer:
    """What `install` would put here. Raises ENGINE_UNSUPPORTED where it cannot (see install)."""
    release = Release(VERSION, releases(NAME, RELEASES), _machine(platform.machine()))
    url = release.url(release.archive)
    return Offer(NAME, f"Ollama {VERSION}", url, ARCHIVE_BYTES, ROOM_BYTES, places().engines / NAME, (url,))


def install(
    listener: Listener,
    *,
    version: str = VERSION,
    base: str | None = None,
    folder: Path | None = None,
    machine: str | None = None,
) -> Installation:
    """Put a release of Ollama into `folder` (default: mscli's own) in place of what is there; returns what runs.

    Goes through the proxy that the environment names, and on from what an earlier call has fetched. Raises as
    archive.put does, and ENGINE_UNSUPPORTED for a machine that no release is made for.
    """
    from mscli.engines.archive import Archive, Publisher, put, read

    publisher = Publisher(PAGE, OFFLINE)
    release = Release(version, (base or releases(NAME, RELEASES)).rstrip("/"), _machine(machine or platform.machine()))
    place = folder or places().engines / "ollama"
    partial = place.with_name(f"{place.name}-{version}-{release.machine}.partial")
    hashes = read(release.url(CHECKSUMS), publisher)
    archive = Archive(publisher, release.url(release.archive), _published_hash(hashes, release), "bin/ollama")
    program = put(archive, partial, place, listener)
    return Installation("ollama", (str(program),), version, "own", program, cpu=True)


def _machine(name: str) -> str:
    if found := MACHINES.get(name.lower()):
        return found
    raise MscliError(
        Code.ENGINE_UNSUPPORTED,
        f"Ollama publishes no Linux release for {name}",
        "Releases exist for amd64 and arm64 only.",
    )


def _published_hash(checksums: str, release: Release) -> str:
    """The sha256 that the release states for its archive."""
    rows = (line.split() for line in checksums.splitlines())
    hashes = {row[1].removeprefix("./").lstrip("*"): row[0] for row in rows if len(row) == 2}
    found = hashes.get(release.archive, "")
    if not re.fullmatch(r"[0-9a-f]{64}", found):
        raise MscliError(
            Code.DOWNLOAD_FAILED,
            f"{release.url(CHECKSUMS)} lists no sha256 for {release.archive}",
            "Check that it is the release's file and not a proxy's error page.",
            {"cause": "model_not_found"},
        )
    return found


def client_version(path: Path) -> str | None:
    """The version of the program at `path`, None if it does not tell. Waits at most VERSION_TIMEOUT_S.

    `ollama --version` asks the server first and waits for it without limit, then prints the server's version, and its
    own where the two differ. So it is sent to a port that nobody can listen on.
    """
    try:
        told = ask([path, "--version"], VERSION_TIMEOUT_S, {**os.environ, "OLLAMA_HOST": NOBODY})
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told_version(told.stdout + told.stderr)


def told_version(said: str) -> str | None:
    """The program's own version by the answer of `ollama --version`."""
    found = re.search(r"client version is (\S+)", said) or re.search(r"version is (\S+)", said)
    return found[1] if found else None
