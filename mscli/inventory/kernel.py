"""Text that the kernel gives under /proc and /sys."""

from __future__ import annotations

from pathlib import Path


def text_of(path: Path) -> str:
    """What a file says; empty if it is absent or not for this user to read, as much of /proc is."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
