"""Downloads that were broken off: told only, since every byte of them was paid for with time."""

from __future__ import annotations

from mscli.doctor.checks.context import CheckContext
from mscli.doctor.repair.repairs import Found, ManualStep
from mscli.errors import MscliError
from mscli.lifecycle.pinned import catalogue
from mscli.paths import hub_cache
from mscli.weights.cache import cache, holder
from mscli.weights.stored import Stored, on_disk

GIB = 2**30


def look_at_weights(ctx: CheckContext) -> Found:
    """A manual step for each unfinished download that no process goes on with."""
    folder = hub_cache(ctx.env)
    try:
        catalog = catalogue(ctx.places)
        stored = on_disk(catalog.profiles.values(), catalog.models, folder)
    except (MscliError, OSError):
        return [], []  # the area `weights` says what is wrong with the folder
    return [], [_repair(item) for item in stored if item.unfinished and not _in_work(item, ctx)]


def _in_work(item: Stored, ctx: CheckContext) -> bool:
    place = cache(hub_cache(ctx.env))
    locks = place.root / ".locks" / place.repository(item.repository).name
    return any(holder(locks / f"{path.name.split('.')[0]}.lock") for path in item.unfinished)


def _repair(item: Stored) -> ManualStep:
    size = f"{item.unfinished_bytes / GIB:.1f} GiB of {item.repository} were fetched when its download was broken off"
    if item.profiles:
        why = f"{size}; they are kept: go on with it, or free what no profile needs with `mscli weights prune`"
        return ManualStep("weights", why, f"mscli pull {item.profiles[0]}")
    return ManualStep("weights", f"{size}; no profile needs them", "mscli weights prune")
