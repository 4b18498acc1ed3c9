"""Writes GGUF files, by hand: their bytes must not depend on the version of a library.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from support.tiny_model.weights import Array

ALIGNMENT = 32
Q8_0_BLOCK = 32

Value = bool | int | float | str | list[int] | list[float] | list[str]


@dataclass(frozen=True)
class Encoding:
    """A tensor type: its number in GGUF, and how its bytes are made."""

    number: int
    encode: Callable[[Array], bytes]


def _q8_0(array: Array) -> bytes:
    """Blocks of 32 values: an f16 scale, then 32 signed bytes."""
    blocks = array.reshape(-1, Q8_0_BLOCK).astype(np.float32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    steps = np.rint(np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale > 0)).astype(np.int8)
    return np.hstack([scale.astype("<f2").view(np.int8), steps]).tobytes()


F32 = Encoding(0, lambda array: array.astype("<f4").tobytes())
F16 = Encoding(1, lambda array: array.astype("<f2").tobytes())
Q8_0 = Encoding(8, _q8_0)

_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _scalar(value: bool | int | float | str) -> tuple[int, bytes]:
    """A value's type number and bytes. Whole numbers are written unsigned."""
    if isinstance(value, bool):
        return _BOOL, struct.pack("<?", value)
    if isinstance(value, int):
        return _U32, struct.pack("<I", value)
    if isinstance(value, float):
        return _F32, struct.pack("<f", value)
    return _STRING, _string(value)


def _typed(value: Value) -> bytes:
    if isinstance(value, list):
        kind = {int: _I32, float: _F32, str: _STRING}[type(value[0])]
        items = b"".join(struct.pack("<i", item) if isinstance(item, int) else _scalar(item)[1] for item in value)
        return struct.pack("<IIQ", _ARRAY, kind, len(value)) + items
    kind, data = _scalar(value)
    return struct.pack("<I", kind) + data


def _padding(length: int) -> bytes:
    return b"\0" * (-length % ALIGNMENT)


Tensor = tuple[str, Array, Encoding]


def write_gguf(path: Path, metadata: Mapping[str, Value], tensors: Iterable[Tensor]) -> None:
    """One GGUF v3 file with the metadata and tensors in the given order."""
    encoded = [(name, array.shape, encoding.number, encoding.encode(array)) for name, array, encoding in tensors]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(encoded), len(metadata))
    head += b"".join(_string(key) + _typed(value) for key, value in metadata.items())
    offset = 0
    for name, shape, number, data in encoded:
        head += _string(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", number, offset)
        offset += len(data) + len(_padding(len(data)))
    with path.open("wb") as file:
        file.write(head + _padding(len(head)))
        for *_, data in encoded:
            file.write(data + _padding(len(data)))
