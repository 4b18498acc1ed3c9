"""Stored weights: what lies on this disk, how large, last used when, and which profiles need it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mscli.catalog.model import Model
from mscli.catalog.profile import Profile


@dataclass(frozen=True)
class Stored:
    """One revision of a repository in the hub cache.

    `size_bytes`: what it takes on disk, unfinished downloads included; `unfinished_bytes`: those alone.
    `last_used_s`: seconds since the epoch when a file of it was last read, None where the file system does not say.
    `profiles`: names of the profiles whose variant this is (empty: an older revision, or nobody's).
    """

    repository: str
    revision: str
    path: Path
    size_bytes: int
    unfinished_bytes: int
    last_used_s: float | None
    profiles: tuple[str, ...]


def on_disk(profiles: Iterable[Profile], models: Mapping[str, Model]) -> tuple[Stored, ...]:
    """The revisions in the hub cache of every repository that a model of the catalogue names, largest first."""
    raise NotImplementedError


def prune_candidates(stored: Iterable[Stored], keep: Collection[Path]) -> tuple[Stored, ...]:
    """Those that no profile needs and that hold none of the paths in `keep` (weights of existing instances)."""
    raise NotImplementedError


def prune(stored: Stored) -> int:
    """Deletes one stored revision, and of its blobs those that no other revision uses; returns the bytes freed."""
    raise NotImplementedError
