"""Digests by which the hub names every file: SHA-256 for large (LFS) files, git's blob id for small ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mscli.weights.listing import RemoteFile

BLOCK_BYTES = 1 << 20


class Hash(Protocol):
    """A digest under way (hashlib's interface). `update` releases the interpreter lock for large blocks."""

    def update(self, data: memoryview, /) -> None:
        """Takes more bytes."""

    def hexdigest(self) -> str:
        """The digest of all bytes taken."""


def digest(file: RemoteFile) -> Hash:
    """An empty digest of the kind that `file` is named by."""
    if expected(file) == file.sha256:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)


def expected(file: RemoteFile) -> str:
    """The digest that all the file's bytes must have."""
    return file.sha256 or file.etag


def file_is_right(path: Path, file: RemoteFile, tell: Callable[[int], bool] = lambda _: True) -> bool:
    """Reads the whole file, at the speed of disk and one core, and compares.

    `tell` hears after each MiB how many bytes are done; when it answers False, the check is given up as not right.
    """
    if path.stat().st_size != file.size_bytes:
        return False
    found, buffer, done = digest(file), memoryview(bytearray(BLOCK_BYTES)), 0
    with path.open("rb", buffering=0) as content:
        while count := content.readinto(buffer):
            found.update(buffer[:count])
            done += count
            if not tell(done):
                return False
    return found.hexdigest() == expected(file)
