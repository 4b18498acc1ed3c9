"""Ollama's official release in mscli's own folder: fetched, checked against the published hash, unpacked. No root."""

from __future__ import annotations

import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from mscli.engines.archive import Archive, Publisher, client, put, read
from mscli.engines.engine import Installation
from mscli.errors import Code, MscliError
from mscli.paths import places
from mscli.weights.progress import Listener

VERSION = "0.32.15"
RELEASES = "https://github.com/ollama/ollama/releases/download"
CHECKSUMS = "sha256sum.txt"
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
PUBLISHER = Publisher(
    page="https://github.com/ollama/ollama/releases",
    offline="install Ollama from another machine's download (https://ollama.com/download), or use a profile on "
    "llama.cpp.",
)


@dataclass(frozen=True)
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


def install(
    listener: Listener,
    *,
    version: str = VERSION,
    base: str = RELEASES,
    folder: Path | None = None,
    machine: str | None = None,
) -> Installation:
    """Put a release of Ollama into `folder` (default: mscli's own) in place of what is there; returns what runs.

    Goes through the proxy that the environment names, and on from what an earlier call has fetched. Raises as
    archive.put does, ENGINE_UNSUPPORTED for a machine that no release is made for, and ENGINE_MISSING where zstd is
    missing, which unpacks it.
    """
    release = Release(version, base.rstrip("/"), _machine(machine or platform.machine()))
    place = folder or places().engines / "ollama"
    _require_zstd()
    partial = place.with_name(f"{place.name}-{version}-{release.machine}.partial")
    with client() as http:
        hashes = read(http, release.url(CHECKSUMS), PUBLISHER)
        archive = Archive(PUBLISHER, release.url(release.archive), _published_hash(hashes, release), "bin/ollama")
        program = put(http, archive, partial, place, listener)
    return Installation("ollama", (str(program),), version, "own", program, cpu=True)


def _machine(name: str) -> str:
    if found := MACHINES.get(name.lower()):
        return found
    raise MscliError(
        Code.ENGINE_UNSUPPORTED, f"Ollama publishes no Linux release for {name}", "It publishes amd64 and arm64."
    )


def _require_zstd() -> None:
    if shutil.which("zstd") is None:
        raise MscliError(
            Code.ENGINE_MISSING,
            "Ollama's archive is packed with zstd, and no zstd is on PATH to unpack it",
            "Install it (Debian, Ubuntu: apt install zstd; conda: conda install zstd), then run this again.",
        )


def _published_hash(checksums: str, release: Release) -> str:
    """The sha256 that the release states for its archive."""
    rows = (line.split() for line in checksums.splitlines())
    hashes = {row[1].removeprefix("./").lstrip("*"): row[0] for row in rows if len(row) == 2}
    found = hashes.get(release.archive, "")
    if not re.fullmatch(r"[0-9a-f]{64}", found):
        raise MscliError(
            Code.DOWNLOAD_FAILED,
            f"{release.url(CHECKSUMS)} states no sha256 of {release.archive}",
            "Is it the release's own file, or a proxy's page?",
            {"cause": "model_not_found"},
        )
    return found
