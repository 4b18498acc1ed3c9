"""What a repository of the hub holds, and who may have it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

LFS_FROM_BYTES = 10_000


@dataclass(frozen=True)
class HubFile:
    """One file. Large ones are LFS files: named by their SHA-256 and sent from the CDN address."""

    name: str
    content: bytes | Path
    size: int
    sha256: str
    blob_id: str

    @property
    def lfs(self) -> bool:
        return self.size >= LFS_FROM_BYTES

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob_id

    def read(self, start: int, end: int) -> bytes:
        if isinstance(self.content, bytes):
            return self.content[start:end]
        with self.content.open("rb") as file:
            file.seek(start)
            return file.read(end - start)


@dataclass
class Repository:
    """A model repository at one commit. `accepted`: tokens whose owners accepted the gate; None: there is no gate."""

    name: str
    files: dict[str, HubFile]
    commit: str
    accepted: set[str] | None = None
    private: bool = False
    xet_hashes: dict[str, str] = field(default_factory=dict)


def repository(name: str, contents: dict[str, bytes | Path]) -> Repository:
    """A repository of these files; its commit is a digest of their names and bytes."""
    files = {file: _file(file, content) for file, content in contents.items()}
    commit = hashlib.sha1("".join(f"{file.name}{file.sha256}" for file in files.values()).encode()).hexdigest()
    return Repository(name, files, commit)


def _file(name: str, content: bytes | Path) -> HubFile:
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    sha256, blob_id = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    if isinstance(content, bytes):
        sha256.update(content)
        blob_id.update(content)
    else:
        with content.open("rb") as file:
            while block := file.read(1 << 20):
                sha256.update(block)
                blob_id.update(block)
    return HubFile(name, content, size, sha256.hexdigest(), blob_id.hexdigest())
