"""Weights in a plain folder (a clone, `hf download --local-dir`, a copied snapshot, LM Studio's models folder).

There is no listing to compare with, so the files are only asked what they say of themselves: every part of a split file
must be there, and each must be as long as its header says (safetensors and GGUF name the place of every tensor there).
Nothing is ever written to such a folder.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from mscli.catalog.model import Variant
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.paths import lm_studio_folders
from mscli.untrusted import parse_json
from mscli.weights.cache import Cache
from mscli.weights.listing import WEIGHT_SUFFIXES, Listing, RemoteFile, WantedFile, matching

SPLIT = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})(?P<suffix>\.\w+)")


@frozen
class LocalFiles:
    """A variant's files, by their names in `folder`."""

    folder: Path
    names: tuple[str, ...]

    def listing(self, variant: Variant) -> Listing:
        """The files with their sizes; their hashes are not known."""
        sizes = {name: (self.folder / name).stat().st_size for name in self.names}
        files = (WantedFile(RemoteFile(name, size, None, ""), size, True) for name, size in sizes.items())
        return Listing(variant.source.repository, variant.source.revision, tuple(files))


def unlisted(variant: Variant, place: Cache, folder: Path | None) -> LocalFiles | None:
    """The variant's files as another tool left them: in the cache at the pinned commit, or plainly in `folder`.

    None when there are none. Raises MscliError(WEIGHTS_MISSING) when some are missing or cut.
    """
    source = variant.source
    commit = place.commit(source.repository, source.revision)
    snapshot = place.snapshot(source.repository, commit) if commit else None
    plain = folder if folder is not None and not any(folder.glob("models--*")) else None
    for candidate in (snapshot, plain):
        if candidate is not None and (names := names_in(variant, candidate)) is not None:
            return LocalFiles(candidate, names)
    return None


def names_in(variant: Variant, folder: Path) -> tuple[str, ...] | None:
    """The names of the variant's files in `folder`; None when there are none of its weights at all.

    Raises MscliError(WEIGHTS_MISSING) when some are missing or cut.
    """
    if not folder.is_dir():
        return None
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    found = matching(names, variant)
    if not any(name.endswith(WEIGHT_SUFFIXES) for name in found):
        return None
    faults = [f"{name} is missing" for name in _absent(variant, found)]
    faults += [f"{name}: {fault}" for name in found if (fault := length_fault(folder / name))]
    if faults:
        message = f"incomplete weights in {folder}: {'; '.join(faults[:3])}"
        hint = "copy them again: `mscli pull --to DIR` on an online machine, `mscli up --weights DIR` here"
        raise MscliError(Code.WEIGHTS_MISSING, message, hint, {"cause": "corrupt_weights", "faults": faults})
    return found


def _absent(variant: Variant, found: tuple[str, ...]) -> list[str]:
    plain = [name for name in variant.source.files if not set(name) & set("*?[")]
    projector = [variant.source.projector] if variant.source.projector else []
    split = [match for name in found if (match := SPLIT.fullmatch(name))]
    parts = [
        f"{match['stem']}-{part:05d}-of-{match['parts']}{match['suffix']}"
        for match in split
        for part in range(1, int(match["parts"]) + 1)
    ]
    return sorted({*plain, *projector, *parts} - set(found))


def in_lm_studio(variant: Variant, listing: Listing | None) -> LocalFiles | None:
    """The variant's files as LM Studio keeps them, projector included; None unless every one is there and whole.

    With the hub's `listing` each must have exactly the size that it states; without one (None) each must be as long as
    its own header says. The content's hash is checked by `mscli pull --verify` alone.
    """
    if variant.format != "gguf":
        return None
    for models in lm_studio_folders():
        folder = models / variant.source.repository
        names = _as_listed(listing, folder) if listing else _as_headers_say(variant, folder)
        if names:
            return LocalFiles(folder, names)
    return None


def _as_listed(listing: Listing, folder: Path) -> tuple[str, ...]:
    sizes = {file.remote.name: file.remote.size_bytes for file in listing.files}
    here = all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())
    return tuple(sizes) if here else ()


def _as_headers_say(variant: Variant, folder: Path) -> tuple[str, ...]:
    with suppress(MscliError):  # some are missing or cut: then there is no copy to use, and nothing to tell of it
        return names_in(variant, folder) or ()
    return ()


LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAX_SAFETENSORS_HEADER_BYTES, MAX_GGUF_STRING_BYTES = 100_000_000, 100_000_000

# GGML tensor type -> (values per block, bytes per block), from ggml's type traits.
GGML_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
# GGUF metadata type -> bytes; 8 is a string, 9 an array.
_GGUF_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_STRING, _GGUF_ARRAY, _GGUF_U32 = 8, 9, 4


def length_fault(path: Path) -> str | None:
    """What is wrong with the file by its own header, in words; None when nothing is, or when its kind has no header."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            return "a Git LFS pointer, not the weights (download them with `git lfs pull`)"
        file.seek(0)
        try:
            if path.name.endswith(".safetensors"):
                return _compare(size, _safetensors_end(file), exactly=True)
            if path.name.endswith(".gguf"):
                return _compare(size, _gguf_end(file), exactly=False)
        except (struct.error, ValueError, KeyError, TypeError) as error:
            return f"unreadable header ({error})"
    return None


def _compare(size: int, end: int, *, exactly: bool) -> str | None:
    if size < end:
        return f"ends after {size:,} bytes; its header says {end:,}"
    return f"has {size:,} bytes; its header says {end:,}" if exactly and size > end else None


def _safetensors_end(file: BinaryIO) -> int:
    (header_bytes,) = struct.unpack("<Q", file.read(8))
    if header_bytes > MAX_SAFETENSORS_HEADER_BYTES:
        raise ValueError(f"a header of {header_bytes:,} bytes")
    tensors = parse_json(file.read(header_bytes))
    ends = [int(entry["data_offsets"][1]) for name, entry in tensors.items() if name != "__metadata__"]
    return 8 + int(header_bytes) + max(ends, default=0)


def _gguf_end(file: BinaryIO) -> int:
    magic, version, tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version < 2:
        raise ValueError(f"not GGUF version 2 or later: {magic!r} {version}")
    alignment = 32
    for _ in range(pairs):
        key, kind = _gguf_string(file), _u32(file)
        if key == b"general.alignment" and kind == _GGUF_U32:
            alignment = _u32(file)
        else:
            _skip_gguf_value(file, kind)
    ends = list(_gguf_tensor_ends(file, tensors))
    data_start = -(-file.tell() // alignment) * alignment
    return data_start + max(ends, default=0)


def _gguf_tensor_ends(file: BinaryIO, tensors: int) -> Iterator[int]:
    """End of each tensor, in bytes from the start of the tensor data. An unknown type counts as empty."""
    for _ in range(tensors):
        _gguf_string(file)
        values = 1
        for _ in range(_u32(file)):
            values *= _u64(file)
        kind, offset = _u32(file), _u64(file)
        per_block, block_bytes = GGML_BLOCKS.get(kind, (1, 0))
        yield offset + values // per_block * block_bytes


def _skip_gguf_value(file: BinaryIO, kind: int) -> None:
    if kind == _GGUF_STRING:
        _gguf_string(file)
    elif kind == _GGUF_ARRAY:
        inner, count = _u32(file), _u64(file)
        if inner in _GGUF_VALUE_BYTES:
            file.seek(_GGUF_VALUE_BYTES[inner] * count, 1)
            return
        for _ in range(count):
            _skip_gguf_value(file, inner)
    else:
        file.seek(_GGUF_VALUE_BYTES[kind], 1)


def _gguf_string(file: BinaryIO) -> bytes:
    length = _u64(file)
    if length > MAX_GGUF_STRING_BYTES:
        raise ValueError(f"a text of {length:,} bytes")
    return file.read(length)


def _u32(file: BinaryIO) -> int:
    return int(struct.unpack("<I", file.read(4))[0])


def _u64(file: BinaryIO) -> int:
    return int(struct.unpack("<Q", file.read(8))[0])
