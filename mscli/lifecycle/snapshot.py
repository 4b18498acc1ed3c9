"""Everything a plan is made from, seen once: this machine, our own instances, installed engines, earlier starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mscli.catalog.gpus import load_gpus
from mscli.engines.engine import Adopted, Hosted, Installation
from mscli.engines.table import INSTALLABLE, STARTABLE, engine, offer
from mscli.errors import MscliError
from mscli.instances.json_values import load_lines
from mscli.instances.records import Records, claims
from mscli.inventory.detect import detect
from mscli.inventory.inventory import Inventory
from mscli.paths import Places, hub_cache, shipped_profiles
from mscli.planning.learned import Observation
from mscli.planning.plan import ENGINE_INSTALLABLE, ENGINE_MISSING, ENGINE_READY
from mscli.planning.verdict import Availability, Known


@dataclass(frozen=True)
class Snapshot(Known):
    """What was seen, as the planner takes it. `rivals`: marks of our own instances that were known at that moment."""

    rivals: tuple[str, ...] = ()


def see(
    places: Places,
    engines: Sequence[str],
    replaced: str | None = None,
    gpus: bool = True,
    adopt: bool = False,
    installed_only: bool = False,
) -> Snapshot:
    """Look at this machine. `engines`: those whose installed version matters. `replaced`: the instance whose memory
    will come back first. `gpus` False: NVML is left alone, for what runs on the CPU. `adopt`: the version of a server
    that runs counts, where the engine has one. `installed_only`: an engine that is not here is missing, also one that
    mscli could install. Reads /proc and files; waits for programs to tell their version."""
    known = Records(places).all()[0]
    inventory = detect(hub_cache(), gpus=gpus)
    found = {name: located(name, adopt) for name in sorted(set(engines) & set(STARTABLE))}
    return Snapshot(
        inventory=inventory,
        claims=claims(known, replaced),
        facts=load_gpus(shipped_profiles()),
        versions={
            name: there.version for name, there in found.items() if not isinstance(there, MscliError) and there.version
        },
        observations=load_observations(places),
        rivals=tuple(record.mark for record in known),
        engines={
            (name, device): _availability(name, there, device, inventory, installed_only)
            for name, there in found.items()
            for device in ("gpu", "cpu")
        },
    )


def load_observations(places: Places) -> tuple[Observation, ...]:
    """What earlier starts really took, in order of time, for the next plan to learn from."""
    return load_lines(places.observations, Observation)


def located(name: str, adopt: bool = False) -> Installation | Adopted | MscliError:
    """An engine as it would be used here, or why there is none. `adopt`: a server that runs is used."""
    known = engine(name)
    try:
        if isinstance(known, Hosted) and (adopted := known.adopt() or (known.running() if adopt else None)):
            return adopted
        return known.locate()
    except MscliError as fault:
        return fault


def _availability(
    name: str, found: Installation | Adopted | MscliError, device: str, inventory: Inventory, installed_only: bool
) -> Availability:
    if isinstance(found, Installation) and device == "gpu" and found.gpu is False:
        return Availability(ENGINE_MISSING, f"{found.path} has no GPU code")
    if not isinstance(found, MscliError):
        return Availability(ENGINE_READY)
    if installed_only:
        return Availability(ENGINE_MISSING, found.message)
    if (reason := not_installable(name, found, device, inventory)) is not None:
        return Availability(ENGINE_MISSING, reason.message)
    return Availability(ENGINE_INSTALLABLE)


def not_installable(name: str, missing: MscliError, device: str, inventory: Inventory) -> MscliError | None:
    """Why mscli cannot install an engine that is `missing` for a profile on `device`; None where it can.

    A copy that the user names, or that is first on PATH and does not run, is never gone round.
    """
    if name not in INSTALLABLE or "path" in missing.details or "cause" in missing.details:
        return missing
    try:
        offer(name, device, inventory.cuda)
    except MscliError as reason:
        return reason
    return None


def installed(name: str) -> str | None:
    """The version of an engine as it would be used here; None where there is none, or it does not tell."""
    found = located(name) if name in STARTABLE else None
    return None if found is None or isinstance(found, MscliError) else found.version
