"""Weights on this machine, whole and checked: the entry points for pulling and looking up a variant.

Weights from the hub live in the cache that all Hugging Face tools share; `folder` names another one of the same layout,
as `carry.copy_to` makes it for machines without a network, or a plain folder with the files.
"""

from __future__ import annotations

from pathlib import Path

from mscli.catalog.model import Model, Variant
from mscli.weights.fault import DEFAULT_TIMEOUTS, Timeouts
from mscli.weights.files import WeightFiles
from mscli.weights.listing import Listing, RemoteFile, WantedFile
from mscli.weights.package import package_files, packaged
from mscli.weights.progress import Listener

__all__ = ["Timeouts", "ensure", "newest_revision", "wanted"]


def ensure(
    model: Model,
    variant: Variant,
    listener: Listener,
    *,
    offline: bool = False,
    folder: Path | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> WeightFiles:
    """The variant's weight files, complete and verified; fetches what is missing and waits for it.

    `offline`: nothing is fetched (HF_HUB_OFFLINE has the same effect). `folder`: weights brought by disk, used in place
    of the hub cache; nothing is fetched either. Interrupted or killed, it keeps what has arrived for the next call.
    With everything in place it neither asks the hub nor imports its library. Raises MscliError with WEIGHTS_MISSING,
    DOWNLOAD_FAILED, DISK_FULL, FILE or ENGINE_UNSUPPORTED; details["cause"] is one of hf_gated, hf_rate_limit,
    network_proxy, offline, stalled_download, corrupt_download, corrupt_weights, disk_full, model_not_found.
    """
    if variant.source.kind == "package":
        return packaged(model, variant)
    from mscli.weights.from_hub import fetch

    return fetch(variant, listener, offline=offline, folder=folder, timeouts=timeouts)


def wanted(
    model: Model,
    variant: Variant,
    *,
    offline: bool = False,
    folder: Path | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> Listing:
    """What the variant needs, byte for byte, and what of it is here; asks the hub once per commit, fetches nothing.

    Raises MscliError(WEIGHTS_MISSING) when the hub was never asked and must not be; otherwise as `ensure` does.
    """
    if variant.source.kind == "package":
        files = (
            WantedFile(RemoteFile(name, size, None, ""), size, True) for name, size in package_files(model, variant)
        )
        return Listing("mscli", "", tuple(files))
    from mscli.weights.from_hub import listed

    return listed(variant, offline=offline, folder=folder, timeouts=timeouts)


def newest_revision(variant: Variant, *, branch: str = "main", timeouts: Timeouts = DEFAULT_TIMEOUTS) -> str:
    """The newest commit of the variant's repository, for `mscli profiles update`. Raises as `ensure` does."""
    from mscli.weights.from_hub import newest

    return newest(variant, branch=branch, timeouts=timeouts)
