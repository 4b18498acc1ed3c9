"""Sizes as people write them: 14333910592, "14.3 GB" or "13.35 GiB"."""

from __future__ import annotations

import re
from collections.abc import Mapping

_UNITS: Mapping[str, int] = {
    "B": 1,
    **{"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40},
}
_SIZE = re.compile(r"([0-9][0-9_]*)(?:\.([0-9]{1,12}))? ?([A-Za-z]+)")


def parse_size(text: str) -> int:
    """`text` in bytes, rounded to the nearest byte: powers of 1000 for kB, MB, GB, TB, of 1024 for KiB, MiB, GiB, TiB.

    Raises ValueError, worded for the user, for anything else: "14 G", "14gb" and "14.3" could mean either.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"expected bytes or a size such as 14.3 GB or 13.4 GiB, got '{text}'")
    whole, fraction, unit = match[1].replace("_", ""), match[2] or "", match[3]
    if unit not in _UNITS:
        raise ValueError(f"unknown unit '{unit}'; {_meant(unit)}")
    scale: int = 10 ** len(fraction)
    return (2 * int(whole + fraction) * _UNITS[unit] + scale) // (2 * scale)


def _meant(unit: str) -> str:
    letter = unit[0].upper()
    decimal, binary = ("kB" if letter == "K" else f"{letter}B"), f"{letter}iB"
    if decimal in _UNITS and binary in _UNITS:
        return f"write {decimal} for {_UNITS[decimal]:,} bytes or {binary} for {_UNITS[binary]:,}"
    return f"the units are {', '.join(_UNITS)}"
