"""An Inventory as plain JSON values: the data of `mscli gpus --json`."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

from mscli.inventory.inventory import Inventory


def to_json(inventory: Inventory) -> dict[str, object]:
    """Every field under its own name: tuples as lists, paths as text, None as null."""
    return {field.name: _plain(getattr(inventory, field.name)) for field in fields(inventory)}


def _plain(value: object) -> object:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
