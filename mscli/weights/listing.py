"""Listing: the files a variant needs from its repository, with exact bytes, and what of them is already here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """One file as the hub describes it at one commit.

    `sha256`: of the content for large (LFS) files, None for small ones. `etag`: the name of its blob in the cache:
    the sha256 of a large file, the git blob id of a small one. Either is enough to check every byte.
    """

    name: str
    size_bytes: int
    sha256: str | None
    etag: str


@dataclass(frozen=True)
class WantedFile:
    """A file to have, and how many of its bytes are on disk already (all of them: nothing to do)."""

    remote: RemoteFile
    present_bytes: int

    @property
    def missing_bytes(self) -> int:
        """What is still to be fetched."""
        return self.remote.size_bytes - self.present_bytes


@dataclass(frozen=True)
class Listing:
    """What a variant needs of `repository` at the commit `revision`, in the repository's order."""

    repository: str
    revision: str
    files: tuple[WantedFile, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.remote.size_bytes for file in self.files)

    @property
    def missing_bytes(self) -> int:
        """Bytes still to be fetched."""
        return sum(file.missing_bytes for file in self.files)
