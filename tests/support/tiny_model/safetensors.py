"""Writes BF16 safetensors files."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from support.tiny_model.weights import Array


def _bf16(array: Array) -> bytes:
    """Rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    return rounded.astype("<u2").tobytes()


def write_safetensors(path: Path, tensors: Mapping[str, Array]) -> None:
    """One file with all tensors in the given order."""
    blobs = {name: _bf16(array) for name, array in tensors.items()}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, blob in blobs.items():
        end = offset + len(blob)
        header[name] = {"dtype": "BF16", "shape": list(tensors[name].shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(blobs.values())
