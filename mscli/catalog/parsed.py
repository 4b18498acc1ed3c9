"""Files of the catalogue as they were parsed before: PyYAML's import and the parsing take 20 ms of a start.

What is kept of a file counts only for the very same text and the very same code that parsed it, so it cannot be stale.
Where there is nothing, or something damaged, the file is parsed: that costs time and changes nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mscli.catalog import document
from mscli.catalog.document import Document, Node, document_in, text_of

_MOST_FILES = 64

# What this process had to parse: it is kept later, when nobody waits for it.
_fresh: dict[Path, tuple[str, Node]] = {}


def read_parsed(path: Path, folder: Path) -> Document:
    """A YAML file as `read_document` reads it, by what is kept of it in `folder`. Raises as that does."""
    text = text_of(path)
    if (root := _kept(path, text, folder)) is not None:
        return Document(path, root)
    made = document_in(path, text)
    _fresh[path] = text, made.root
    return made


def to_keep(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files to write into `folder`, each with its text: what was parsed since the last call. Raises OSError."""
    room = _MOST_FILES - len(os.listdir(folder))
    while _fresh and room > 0:
        path, (text, root) = _fresh.popitem()
        yield _place(path, folder), json.dumps({"text": text, "by": _code(), "root": _packed(root)})
        room -= 1


def _place(path: Path, folder: Path) -> Path:
    return folder / f"{str(path).replace('/', '%')[-200:]}.json"


def _kept(path: Path, text: str, folder: Path) -> Node | None:
    try:
        kept = json.loads(_place(path, folder).read_bytes())
        return _unpacked(kept["root"]) if (kept["text"], kept["by"]) == (text, _code()) else None
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def _code() -> list[int]:
    """The module that parses, as it is now."""
    found = Path(document.__file__).stat()
    return [found.st_mtime_ns, found.st_size]


def _packed(node: Node) -> list[Any]:
    if isinstance(node.value, tuple):
        return [node.line, [_packed(entry) for entry in node.value]]
    if isinstance(node.value, Mapping):
        return [node.line, {name: _packed(entry) for name, entry in node.value.items()}]
    return [node.line, node.value, node.text]


def _unpacked(packed: list[Any]) -> Node:
    line, value, *text = packed
    if isinstance(value, list):
        return Node(line, tuple(map(_unpacked, value)))
    if isinstance(value, dict):
        return Node(line, {name: _unpacked(entry) for name, entry in value.items()})
    return Node(line, value, *text)
