"""The names that a model's file lists, by its lines alone: quicker than reading YAML, and good for a broken file."""

from __future__ import annotations

import re
from pathlib import Path


def way_names(path: Path) -> tuple[str, ...]:
    """The names under `ways`, in the order of the file; none where it cannot be read or is laid out otherwise."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""  # never wait for a pipe
    except OSError:
        return ()
    block = re.search(r"^ways:.*\n((?:(?:[ #].*)?\n)*)", text + "\n", re.M)
    return tuple(re.findall(r"^  ([A-Za-z0-9][\w.-]*):", block[1], re.M)) if block else ()
