"""Frozen values kept for later, one JSON line each, in order of time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from mscli.instances.json_values import Mismatch, from_json, to_json

T = TypeVar("T")
_KEPT = 1000


def load(path: Path, kind: type[T]) -> tuple[T, ...]:
    """The values in order of time; lines that cannot be read are passed over, since they only refine."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    found = []
    for line in lines[-_KEPT:]:
        try:
            found.append(from_json(kind, json.loads(line)))
        except (ValueError, Mismatch):
            continue
    return tuple(found)


def store(path: Path, fresh: Sequence[object]) -> None:
    """Add values at the end. A line is written at once, so that two processes do not mix theirs.

    Raises OSError when the folder cannot be written.
    """
    if not fresh:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        handle.write("".join(json.dumps(to_json(item)) + "\n" for item in fresh))
