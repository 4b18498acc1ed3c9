"""Looking up a listing: from what the cache remembers of a commit, else from the hub."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from mscli.catalog.model import Source, Variant
from mscli.errors import Code, MscliError
from mscli.weights.cache import Cache
from mscli.weights.fault import PassingFault, Timeouts
from mscli.weights.hub import hub
from mscli.weights.listing import Listing, needed
from mscli.weights.progress import LISTING, Listener, Meter, Note

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
            listener.note(Note(code, f"{fault.seen}; asking again in {pause_s:g} s"))
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def _hub_source(variant: Variant) -> Source:
    if variant.source.kind != "hub":
        message = f"{variant.name} comes from {variant.source.kind}, not from the hub."
        raise MscliError(Code.ENGINE_UNSUPPORTED, message, "The Ollama server pulls its own weights.")
    return variant.source
