"""Weights of the hub: looked up, fetched whole and checked.

Loaded only for those: HTTP and TLS take 30 ms to import. The files live in the cache that all Hugging Face tools share;
`folder` names another one of the same layout, as `stored.copy_to` makes it, or a plain folder with the files;
HF_HUB_CACHE makes any other tool use it too. What the cache lacks is taken from LM Studio's models folder if all of it
is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from mscli.catalog.model import Source, Variant
from mscli.errors import Code, MscliError
from mscli.frozen import replace
from mscli.weights.cache import Cache, cache
from mscli.weights.fault import DEFAULT_TIMEOUTS, PassingFault, Timeouts
from mscli.weights.fault import offline as offline_fault
from mscli.weights.hub import hub, offline_by_environment
from mscli.weights.listing import Listing, needed
from mscli.weights.local_folder import in_lm_studio, unlisted
from mscli.weights.progress import LISTING, Listener, Meter, Note, Silence, WeightFiles
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


def tried(variant: Variant, listing: Listing, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
    """Ask for the smallest file that is missing, as a pull does. See ensure.tried."""
    missing = [file.remote for file in listing.files if not file.whole]
    if missing and not offline_by_environment():
        smallest = min(missing, key=lambda file: file.size_bytes)
        source = variant.source.repository
        patiently(lambda: hub(timeouts).locate(source, listing.revision, smallest), source, Silence(), timeouts)


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
    checked = "sizes match the hub's" if listing else "sizes match their headers"
    said = f"using LM Studio's copy in {found.folder}; {checked} (hashes: mscli pull --verify)"
    listener.note(Note("lm_studio", said))
    return _weight_files(variant, found.folder, found.names)


def _unlisted(variant: Variant, place: Cache, listener: Listener, folder: Path | None) -> WeightFiles | None:
    found = unlisted(variant, place, folder)
    if found is None:
        return None
    listener.note(Note("unchecked", f"no hashes known for {found.folder}; sizes match their headers"))
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


T = TypeVar("T")
TRIES = 3


def remembered(variant: Variant, place: Cache) -> Listing | None:
    """The variant's listing as `place` remembers it, with what is there now; None when the hub was never asked."""
    source = _hub_source(variant)
    commit = place.commit(source.repository, source.revision)
    files = place.files(source.repository, commit) if commit else None
    if commit is None or files is None:
        return None
    wanted = tuple(place.want(source.repository, commit, file) for file in needed(variant, files))
    return Listing(source.repository, commit, wanted)


def looked_up(variant: Variant, place: Cache, listener: Listener, timeouts: Timeouts) -> Listing:
    """The variant's listing; asks the hub when `place` does not remember it. Raises MscliError(DOWNLOAD_FAILED)."""
    source = _hub_source(variant)
    if (listing := remembered(variant, place)) is not None:
        return listing
    listener.progress(Meter(LISTING, 0).look(0))
    commit, files = patiently(
        lambda: hub(timeouts).files(source.repository, source.revision), source.repository, listener, timeouts
    )
    with suppress(MscliError):  # a cache that cannot be written can still be used
        place.remember(source.repository, source.revision, commit, files)
    wanted = tuple(place.want(source.repository, commit, file) for file in needed(variant, files))
    return Listing(source.repository, commit, wanted)


def relisted(listing: Listing, place: Cache) -> Listing:
    """The same files, with what of them is in `place` now."""
    files = tuple(place.want(listing.repository, listing.revision, file.remote) for file in listing.files)
    return replace(listing, files=files)


def patiently(call: Callable[[], T], repository: str, listener: Listener, timeouts: Timeouts) -> T:
    """Makes a call to the hub, three times if need be; waits as long as the hub asks, up to `timeouts.retry_s`."""
    deadline_s = time.monotonic() + timeouts.retry_s
    for tries in range(1, TRIES + 1):
        try:
            return call()
        except PassingFault as fault:
            pause_s = fault.wait_s if fault.wait_s is not None else 0.5 * tries
            if tries == TRIES or time.monotonic() + pause_s > deadline_s:
                raise fault.final(repository) from fault
            code = "rate_limit" if fault.cause == "hf_rate_limit" else "retrying"
            listener.note(Note(code, f"{fault.seen}; retrying in {pause_s:g} s"))
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def _hub_source(variant: Variant) -> Source:
    if variant.source.kind != "hub":
        message = f"{variant.name} comes from {variant.source.kind}, not from the hub"
        raise MscliError(Code.ENGINE_UNSUPPORTED, message, "the Ollama server pulls its own weights")
    return variant.source
