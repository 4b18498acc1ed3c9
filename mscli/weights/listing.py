"""The files a variant needs from its repository, with exact bytes and digests, and what of them is already here.

The hub names large (LFS) files by SHA-256 and small ones by git's blob id: either is enough to check every byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from mscli.catalog.model import Variant
from mscli.frozen import frozen
from mscli.untrusted import stays_below
from mscli.weights.fault import missing

WEIGHT_SUFFIXES = (".safetensors", ".gguf")
COMMIT = re.compile(r"[0-9a-f]{40}")
MOST_BYTES = 1 << 50
CONSOLIDATED, SHARDS = "consolidated*.safetensors", "model*.safetensors"


@frozen
class RemoteFile:
    """One file as the hub describes it at one commit.

    `sha256`: of the content for large (LFS) files, None for small ones. `etag`: the name of its blob in the cache:
    the sha256 of a large file, the git blob id of a small one. Either is enough to check every byte.
    """

    name: str
    size_bytes: int
    sha256: str | None
    etag: str

    def __post_init__(self) -> None:
        """Raises ValueError for a name or an etag that would leave the repository's folders, and for a size that no
        file has: names and etags become paths, and all come from a hub or from a file that anyone may have written."""
        if not stays_below(self.name) or not re.fullmatch(r"([0-9a-f]{40}|[0-9a-f]{64})?", self.etag):
            raise ValueError(f"{self.name!r} with the etag {self.etag!r} cannot be stored in the cache")
        if not 0 <= self.size_bytes <= MOST_BYTES:
            raise ValueError(f"{self.name!r} cannot have {self.size_bytes} bytes")


@frozen
class WantedFile:
    """A file to have, and how many of its bytes are on disk already.

    `whole`: it is in place. A file of which every byte has arrived may still have to be checked.
    """

    remote: RemoteFile
    present_bytes: int
    whole: bool

    @property
    def missing_bytes(self) -> int:
        """What is still to be fetched."""
        return self.remote.size_bytes - self.present_bytes


@frozen
class Listing:
    """What a variant needs of `repository` at the commit `revision`, in the repository's order."""

    repository: str
    revision: str
    files: tuple[WantedFile, ...]

    @property
    def whole(self) -> bool:
        """Every file is in place."""
        return all(file.whole for file in self.files)

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.remote.size_bytes for file in self.files)

    @property
    def missing_bytes(self) -> int:
        """Bytes still to be fetched."""
        return sum(file.missing_bytes for file in self.files)


def needed(variant: Variant, files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
    """Of a repository's files, those the variant asks for.

    Raises MscliError(DOWNLOAD_FAILED) when a file that it names, or a pattern of weights, is not among them; patterns
    of other files (a chat template, say) may match nothing.
    """
    source = variant.source
    for pattern in variant_patterns(variant):
        required = pattern.endswith(WEIGHT_SUFFIXES) or not set(pattern) & set("*?[")
        if required and not any(fnmatchcase(file.name, pattern) for file in files):
            raise missing(source.repository, f"file {pattern} in {source.repository} at {source.revision}")
    matched = set(matching((file.name for file in files), variant))
    return tuple(file for file in files if file.name in matched)


def matching(names: Iterable[str], variant: Variant) -> tuple[str, ...]:
    """Of `names`, those the variant asks for, but never the same weights in both layouts.

    Repositories of Mistral hold the weights twice, consolidated and in shards: 48 GB more for nothing.
    """
    names = [name for name in names if any(fnmatchcase(name, pattern) for pattern in variant_patterns(variant))]
    unwanted = CONSOLIDATED if variant.format == "safetensors-hf" else SHARDS
    wanted = SHARDS if variant.format == "safetensors-hf" else CONSOLIDATED
    if not any(fnmatchcase(name, wanted) for name in names):
        return tuple(names)
    return tuple(name for name in names if not fnmatchcase(name, unwanted))


def variant_patterns(variant: Variant) -> tuple[str, ...]:
    """Every name or glob the variant asks for, its projector included."""
    projector = variant.source.projector
    return (*variant.source.files, *([projector] if projector else []))


BLOCK_BYTES = 1 << 20


class Hash(Protocol):
    """A digest under way (hashlib's interface). `update` releases the interpreter lock for large blocks."""

    def update(self, data: memoryview, /) -> None:
        """Takes more bytes."""

    def hexdigest(self) -> str:
        """The digest of all bytes taken."""


def digest(file: RemoteFile) -> Hash:
    """An empty digest of the kind that `file` is named by."""
    import hashlib  # only for files that are checked byte by byte

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
