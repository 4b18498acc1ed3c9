"""Sizes as people read them. Bytes stay int everywhere else; GiB is always 2**30."""

from __future__ import annotations

MIB, GIB = 2**20, 2**30


def gib(size_bytes: int) -> str:
    """ "20.0 GiB"; below a tenth of a GiB in MiB, so that a small shortage never reads 0.0."""
    if abs(size_bytes) < GIB // 10:
        return f"{size_bytes / MIB:.0f} MiB"
    return f"{size_bytes / GIB:.1f} GiB"


def tokens(count: int) -> str:
    """ "131,072 tokens"."""
    return f"{count:,} tokens"


def from_gib(size_gib: float) -> int:
    """Bytes of a size in GiB."""
    return round(size_gib * GIB)
