"""Weights of the hub on this machine, whole and checked. Loaded only for those: HTTP and TLS take 30 ms to import.

Weights from the hub live in the cache that all Hugging Face tools share; `folder` names another one of the same layout,
as `carry.copy_to` makes it for machines without a network, or a plain folder with the files. What the cache lacks is
taken from LM Studio's models folder if all of it is there.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mscli.catalog.model import Variant
from mscli.errors import MscliError
from mscli.weights.cache import Cache, cache
from mscli.weights.fault import DEFAULT_TIMEOUTS, Timeouts
from mscli.weights.fault import offline as offline_fault
from mscli.weights.files import WeightFiles
from mscli.weights.hub import hub, offline_by_environment
from mscli.weights.listing import Listing
from mscli.weights.lm_studio import in_lm_studio
from mscli.weights.local_folder import unlisted
from mscli.weights.lookup import looked_up, patiently, remembered
from mscli.weights.progress import Listener, Note, Silence
from mscli.weights.pull import pull_from_hub


def fetch(
    variant: Variant,
    listener: Listener,
    *,
    offline: bool = False,
    folder: Path | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> WeightFiles:
    """The weight files, complete and verified; fetches what is missing and waits for it. See ensure.ensure.

    Of a copy in LM Studio's folder only the sizes are compared: `mscli pull --verify` checks its hashes.
    """
    place = cache(folder)
    if offline or folder is not None or offline_by_environment():
        return _found(variant, place, listener, folder)
    try:
        listing = looked_up(variant, place, listener, timeouts)
    except MscliError as error:
        if error.details.get("cause") == "network_proxy":
            with suppress(MscliError):  # files that are not whole are no reason to hide why they cannot be fetched
                return _found(variant, place, listener, None)
        raise
    if not listing.whole:
        if (files := _from_lm_studio(variant, listing, listener)) is not None:
            return files
        pull_from_hub(listing, place, listener, timeouts)
    return _shown(variant, place, listing)


def listed(
    variant: Variant,
    *,
    offline: bool = False,
    folder: Path | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> Listing:
    """What the variant needs, and what of it is here. See ensure.wanted."""
    place = cache(folder)
    if offline or folder is not None or offline_by_environment():
        listing = remembered(variant, place)
    else:
        listing = looked_up(variant, place, Silence(), timeouts)
    if listing is not None and listing.whole:
        return listing
    if folder is None and (copy := in_lm_studio(variant, listing)) is not None:
        return copy.listing(variant)
    if listing is None and (found := unlisted(variant, place, folder)) is not None:
        return found.listing(variant)
    if listing is None:
        raise offline_fault(variant.source.repository, None, place.root)
    return listing


def newest(variant: Variant, *, branch: str = "main", timeouts: Timeouts = DEFAULT_TIMEOUTS) -> str:
    """The newest commit of the variant's repository, for `mscli profiles update`. Raises as `ensure` does."""
    repository = variant.source.repository
    return patiently(lambda: hub(timeouts).commit(repository, branch), repository, Silence(), timeouts)


def _found(variant: Variant, place: Cache, listener: Listener, folder: Path | None) -> WeightFiles:
    """The weights as they lie in `place` or `folder`, else in LM Studio's folder, without asking anybody."""
    listing = remembered(variant, place)
    if listing is not None and listing.whole:
        return _shown(variant, place, listing)
    try:
        if listing is None and (files := _unlisted(variant, place, listener, folder)) is not None:
            return files
        raise offline_fault(variant.source.repository, listing.missing_bytes if listing else None, place.root)
    except MscliError:
        if folder is None and (files := _from_lm_studio(variant, listing, listener)) is not None:
            return files
        raise


def _from_lm_studio(variant: Variant, listing: Listing | None, listener: Listener) -> WeightFiles | None:
    found = in_lm_studio(variant, listing)
    if found is None:
        return None
    checked = "their sizes are as the hub states" if listing else "they are as long as they say"
    said = f"LM Studio has the files: served from {found.folder}; {checked}, hashes: mscli pull --verify"
    listener.note(Note("lm_studio", said))
    return _weight_files(variant, found.folder, found.names)


def _unlisted(variant: Variant, place: Cache, listener: Listener, folder: Path | None) -> WeightFiles | None:
    found = unlisted(variant, place, folder)
    if found is None:
        return None
    listener.note(Note("unchecked", f"no hashes are known for {found.folder}: its files are as long as they say"))
    return _weight_files(variant, found.folder, found.names)


def _shown(variant: Variant, place: Cache, listing: Listing) -> WeightFiles:
    for file in listing.files:
        place.show(listing.repository, listing.revision, file.remote)
    names = tuple(file.remote.name for file in listing.files)
    return _weight_files(variant, place.snapshot(listing.repository, listing.revision), names)


def _weight_files(variant: Variant, folder: Path, names: tuple[str, ...]) -> WeightFiles:
    """What the engine is given: the (first) GGUF file, else the folder."""
    projector = variant.source.projector
    ggufs = sorted(name for name in names if name.endswith(".gguf") and name != projector)
    model = folder / ggufs[0] if variant.format == "gguf" and ggufs else folder
    size = sum((folder / name).stat().st_size for name in names)
    return WeightFiles(str(model), str(folder / projector) if projector else None, size)
