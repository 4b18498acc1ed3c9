"""The catalogue as this user has it: shipped and own profiles, with repositories pinned to the commits chosen.

A repository stays at the commit that was pulled first until `mscli profiles update` moves it on purpose. The pins are
one small JSON file, so that moving a pin rewrites no model file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from mscli.catalog.load import Catalog, load_catalog, load_one
from mscli.catalog.model import Model
from mscli.catalog.parsed import read_parsed, to_keep
from mscli.catalog.profile import Profile
from mscli.errors import Code, MscliError
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
