"""Profiles and models as plain JSON values, for `mscli profiles show --json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from mscli.catalog.model import Model
from mscli.catalog.profile import Profile


def profile_json(profile: Profile) -> dict[str, Any]:
    """Every field of `profile` under its own name; sizes in bytes, `path` as text."""
    return {field.name: _plain(getattr(profile, field.name)) for field in fields(profile)}


def model_json(model: Model) -> dict[str, Any]:
    """Every field of `model` under its own name; sizes in bytes, `path` as text."""
    return {field.name: _plain(getattr(model, field.name)) for field in fields(model)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
