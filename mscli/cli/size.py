"""Sizes and times as people read them. GiB everywhere, so that GB and GiB cannot be confused."""

from __future__ import annotations

import time

GIB = 2**30
MIB = 2**20


def size(value: int | None) -> str:
    """Bytes as GiB or MiB; "unknown" for None."""
    if value is None:
        return "unknown"
    return f"{value / GIB:.1f} GiB" if abs(value) >= GIB else f"{value / MIB:.0f} MiB"


def iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def ago(seconds: float) -> str:
    """A duration in its two largest units: `2 h 5 min`, `42 s`."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def bar(share: float, width: int = 20) -> str:
    """A horizontal bar for a share from 0 to 1."""
    filled = round(max(0.0, min(1.0, share)) * width)
    return "█" * filled + "░" * (width - filled)
