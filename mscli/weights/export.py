"""Carrying weights by disk, for machines without a network: a folder that is a hub cache of its own.

`copy_to` fills it, from this machine's cache where the files are there and from the hub where not; on the other machine
`ensure(..., folder=...)` serves from it as it lies, and HF_HUB_CACHE makes any other tool do so too.
"""

from __future__ import annotations

from pathlib import Path

from mscli.catalog.model import Variant
from mscli.weights.cache import cache
from mscli.weights.fault import DEFAULT_TIMEOUTS, Timeouts
from mscli.weights.fault import offline as offline_fault
from mscli.weights.hub import Location, hub, offline_by_environment
from mscli.weights.listing import Listing, RemoteFile
from mscli.weights.lookup import looked_up, relisted, remembered
from mscli.weights.progress import Listener
from mscli.weights.pull import Pull


def copy_to(
    variant: Variant,
    folder: Path,
    listener: Listener,
    *,
    offline: bool = False,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> Listing:
    """Puts the variant's files into `folder`, checked while they are copied, and returns what it now holds.

    Goes on where an earlier copy stopped. Raises as `ensure`, and MscliError(WEIGHTS_MISSING, cause corrupt_weights)
    when a file in this machine's cache is damaged.
    """
    here, there = cache(), cache(folder)
    offline = offline or offline_by_environment()
    listing = remembered(variant, here) if offline else looked_up(variant, here, listener, timeouts)
    if listing is None or (offline and not listing.whole):
        raise offline_fault(variant.source.repository, listing.missing_bytes if listing else None, here.root)
    all_files = here.files(listing.repository, listing.revision) or [file.remote for file in listing.files]
    there.remember(listing.repository, variant.source.revision, listing.revision, all_files)
    hub_now = hub(timeouts)

    def locate(file: RemoteFile) -> Location:
        local = here.whole(listing.repository, listing.revision, file)
        if local is not None:
            return Location(local.as_uri(), {})
        return hub_now.locate(listing.repository, listing.revision, file)

    wanted = relisted(listing, there)
    Pull(wanted, there, locate, listener, timeouts).run()
    return relisted(wanted, there)
