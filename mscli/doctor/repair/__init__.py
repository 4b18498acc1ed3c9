"""What `mscli doctor --fix` may change: records, processes and profiles of our own, each shown before it is changed.

Never drivers, services, others' processes or bytes that were paid for with time: those become manual steps.
"""

from __future__ import annotations

from collections.abc import Iterable

from mscli.doctor.checks.check import AREAS, CheckContext
from mscli.doctor.repair.fix import Fix, Listener, ManualStep, Outcome, Repairs
from mscli.doctor.repair.instances import dead_records, orphans
from mscli.doctor.repair.profiles import broken_profiles
from mscli.errors import MscliError
from mscli.lifecycle.pinned import catalogue
from mscli.paths import hub_cache
from mscli.planning.plan import gib
from mscli.weights.cache import cache, holder
from mscli.weights.stored import Stored, on_disk


def look(ctx: CheckContext, areas: Iterable[str] = AREAS) -> Repairs:
    """What can be mended in these areas, in the order in which to do it, and what is left to the user.

    Reads files, /proc and NVML; changes nothing.
    """
    looks = {"instances": (orphans, dead_records), "profile": (broken_profiles,), "weights": (unfinished_downloads,)}
    wanted = set(areas)
    found = [one(ctx) for area, own in looks.items() if area in wanted for one in own]
    return [fix for fixes, _ in found for fix in fixes], [step for _, steps in found for step in steps]


def carry_out(fix: Fix, listener: Listener = lambda _: None) -> Outcome:
    """Do it. What keeps it from being done is its result, never an error: one fix must not keep others from theirs."""
    try:
        return Outcome(fix, True, fix.apply(listener))
    except MscliError as fault:
        return Outcome(fix, False, f"{fault.message}. {fault.hint}".removesuffix(". "))
    except OSError as fault:
        return Outcome(fix, False, f"{fault.strerror or fault}: {fault.filename}" if fault.filename else str(fault))


def unfinished_downloads(ctx: CheckContext) -> Repairs:
    """A manual step for each download that was broken off and that no process goes on with; its bytes are kept."""
    try:
        catalog = catalogue(ctx.places)
        stored = on_disk(catalog.profiles.values(), catalog.models, hub_cache(ctx.env))
    except (MscliError, OSError):
        return [], []  # the area `weights` says what is wrong with the folder
    return [], [_resume(item) for item in stored if item.unfinished and not _in_work(item, ctx)]


def _in_work(item: Stored, ctx: CheckContext) -> bool:
    place = cache(hub_cache(ctx.env))
    locks = place.root / ".locks" / place.repository(item.repository).name
    return any(holder(locks / f"{path.name.split('.')[0]}.lock") for path in item.unfinished)


def _resume(item: Stored) -> ManualStep:
    size = f"unfinished download of {item.repository} ({gib(item.unfinished_bytes)} kept)"
    if item.profiles:
        return ManualStep(
            "weights", f"{size}; resume it, or delete it with `mscli weights prune`", f"mscli pull {item.profiles[0]}"
        )
    return ManualStep("weights", f"{size}; not needed by any profile", "mscli weights prune")
