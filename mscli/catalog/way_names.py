"""The names that a model's file lists, by its lines alone: quicker than reading YAML, and good for a broken file."""

from __future__ import annotations

import re
from pathlib import Path


def way_names(path: Path, sections: str = "ways") -> tuple[str, ...]:
    """The names that a file lists under `ways`, or other `sections` (ways|aliases); none where it cannot be read, or
    is laid out otherwise."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""  # never wait for a pipe
    except OSError:
        return ()
    blocks = re.findall(rf"^(?:{sections}):.*\n((?:(?:[ #].*)?\n)*)", text + "\n", re.M)
    return tuple(name for block in blocks for name in re.findall(r"^  ([A-Za-z0-9][\w.-]*):", block, re.M))
