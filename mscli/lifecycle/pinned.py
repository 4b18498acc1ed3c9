"""The catalogue as this user has it: shipped and own profiles, with repositories pinned to the commits chosen.

A repository stays at the commit that was pulled first until `mscli profiles update` moves it on purpose. The pins are
one small JSON file, so that moving a pin rewrites no model file.

Its files are kept as they were parsed: PyYAML's import and the parsing take 20 ms of a start. What is kept of a file
counts only for the very same text and the very same code that parsed it, so it cannot be stale. Where there is nothing,
or something damaged, the file is parsed: that costs time and changes nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from mscli.catalog import document
from mscli.catalog.document import Document, Node, document_in, text_of
from mscli.catalog.load import Catalog, load_catalog, load_one
from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.errors import Code, MscliError
from mscli.frozen import replace
from mscli.instances.store import private_folder, write_private
from mscli.paths import Places, shipped_profiles


def catalogue(places: Places) -> Catalog:
    """Everything that loads, pins applied. Raises FILE when the pins cannot be read."""
    catalog = load_catalog(shipped_profiles(), places.profiles, partial(read_parsed, folder=places.parsed))
    pins = load_pins(places)
    return replace(catalog, models={name: _pinned(model, pins) for name, model in catalog.models.items()})


def one(name: str, places: Places) -> tuple[Profile, Model]:
    """One profile and its model, pins applied; reads only their two files. Raises as Catalog.profile does."""
    profile, model = load_one(name, shipped_profiles(), places.profiles, partial(read_parsed, folder=places.parsed))
    return profile, _pinned(model, load_pins(places))


def keep_parsed(places: Places) -> None:
    """Keep the catalogue's files as they were parsed, for later starts. What cannot be written is left."""
    with suppress(OSError, MscliError):
        private_folder(places.parsed)
        for path, text in to_keep(places.parsed):
            write_private(path, text)


def load_pins(places: Places) -> Mapping[str, str]:
    """Repository -> commit. Raises FILE when the file is damaged: a lost pin would fetch other weights in silence."""
    try:
        data = json.loads(places.pins.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as fault:
        raise _damaged(places.pins, str(fault)) from fault
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise _damaged(places.pins, "expected an object of repository: commit")
    return data


def pin(places: Places, repository: str, commit: str) -> None:
    """Pin a repository to a commit from now on."""
    private_folder(places.pins.parent)
    write_private(places.pins, json.dumps({**load_pins(places), repository: commit}, indent=1, sort_keys=True) + "\n")


def _pinned(model: Model, pins: Mapping[str, str]) -> Model:
    if not pins:
        return model
    variants = {
        name: replace(variant, source=replace(variant.source, revision=pins[variant.source.repository]))
        if variant.source.kind == "hub" and variant.source.repository in pins
        else variant
        for name, variant in model.variants.items()
    }
    return replace(model, variants=variants)


def _damaged(path: Path, seen: str) -> MscliError:
    return MscliError(Code.FILE, f"the pinned revisions cannot be read: {path}: {seen}", "Fix the file, or remove it.")


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
