"""What of a profile's weights lies on this machine, found without asking anybody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mscli.catalog.model import Variant
from mscli.doctor.checks.context import CheckContext
from mscli.errors import MscliError
from mscli.paths import hub_cache
from mscli.weights.cache import Cache, cache
from mscli.weights.from_hub import remembered
from mscli.weights.header import length_fault
from mscli.weights.listing import WEIGHT_SUFFIXES, Listing, matching
from mscli.weights.local_folder import in_lm_studio, unlisted


@dataclass(frozen=True)
class Holding:
    """Weights of one variant. `where`: the folder that serves, or would. `whole`: all is there, with the right sizes.

    `missing_bytes`: what a pull would fetch. `listed`: the hub's list at this commit is known, so sizes were compared
    with it. `names`: the repository's names of what is known to be needed, or to be there. `fault`: why what is there
    is no use, and `cause` the code of that.
    """

    where: Path
    whole: bool
    missing_bytes: int
    listed: bool
    names: tuple[str, ...]
    fault: str | None = None
    cause: str = "corrupt_weights"


@dataclass(frozen=True)
class Damage:
    """A file in the cache that cannot serve."""

    path: Path
    what: str


def hub_place(ctx: CheckContext) -> Cache:
    """The hub cache of the visit's environment."""
    return cache(hub_cache(ctx.env))


def holding(ctx: CheckContext) -> Holding | None:
    """What is here of the profile asked about; None where none was, or where its weights are not of the hub."""
    if ctx.chosen is None or ctx.chosen.variant.source.kind != "hub":
        return None
    variant = ctx.chosen.variant
    return ctx.once("holding", lambda: _readable(variant, hub_place(ctx)))


def needs_hub(ctx: CheckContext) -> bool:
    """Whether the profile asked about cannot start before something has been fetched from the hub."""
    found = holding(ctx)
    return found is not None and not found.whole


def _readable(variant: Variant, place: Cache) -> Holding:
    try:
        return _holding(variant, place)
    except OSError as fault:
        seen = f"{fault.filename or place.root} cannot be read: {fault.strerror}"
        return Holding(place.root, False, variant.download_bytes, False, (), seen, "permissions")


def _holding(variant: Variant, place: Cache) -> Holding:
    source = variant.source
    try:
        listing = remembered(variant, place)
    except MscliError as fault:  # the hub's list lacks a file that the variant names
        return Holding(place.root, False, variant.download_bytes, True, (), fault.message)
    if listing is not None and listing.whole:
        names = tuple(file.remote.name for file in listing.files)
        return Holding(place.snapshot(source.repository, listing.revision), True, 0, True, names)
    if copy := in_lm_studio(variant, listing):
        return Holding(copy.folder, True, 0, listing is not None, copy.names)
    if listing is not None:
        return _part(listing, place)
    try:
        found = unlisted(variant, place, None)
    except MscliError as fault:
        return Holding(place.root, False, variant.download_bytes, False, (), fault.message)
    if found is not None:
        return Holding(found.folder, True, 0, False, found.names)
    return Holding(place.root, False, variant.download_bytes, False, ())


def _part(listing: Listing, place: Cache) -> Holding:
    names = tuple(file.remote.name for file in listing.files)
    where = place.snapshot(listing.repository, listing.revision)
    return Holding(where, False, listing.missing_bytes, True, names)


def damage(place: Cache, repository: str, wanted: Variant | None = None) -> Iterator[Damage]:
    """The files of a repository in the cache that cannot serve, of every commit: links to nothing, files of another
    size than the hub stated, and, where that is not known, weights that are shorter than they say.

    `wanted`: only the files of this variant. Reads headers only where no size is known. Nothing for a repository that
    may not be looked into: that it cannot be written either is told by another check.
    """
    for folder in _snapshots(place, repository):
        sizes = {file.name: file.size_bytes for file in place.files(repository, folder.name) or ()}
        paths = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
        chosen = paths if wanted is None else {name: paths[name] for name in matching(paths, wanted)}
        for name, path in chosen.items():
            if what := _fault(path, sizes.get(name)):
                yield Damage(path, what)


def _snapshots(place: Cache, repository: str) -> list[Path]:
    try:
        return sorted(path for path in (place.repository(repository) / "snapshots").iterdir() if path.is_dir())
    except OSError:
        return []


def _fault(path: Path, size: int | None) -> str | None:
    try:
        if not path.exists():
            return f"it is a link to {path.readlink()}, which is not there"
        found = path.stat().st_size
        if size is not None and found != size:
            return length_fault(path) or f"it has {found:,} bytes, the hub states {size:,}"
        return length_fault(path) if size is None and path.name.endswith(WEIGHT_SUFFIXES) else None
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
