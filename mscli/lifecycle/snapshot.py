"""Everything a plan is made from, seen once: this machine, our own instances, installed engines, earlier starts; or,
for a machine that is not here, its inventory from words or a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mscli.catalog.gpus import load_gpus
from mscli.engines.engine import Adopted, Hosted, Installation, Offer
from mscli.engines.table import INSTALLABLE, STARTABLE, engine, offer
from mscli.engines.table import located as copy_of
from mscli.errors import Code, MscliError
from mscli.frozen import field, frozen
from mscli.instances.json_values import load_lines
from mscli.instances.records import Records, claims
from mscli.inventory.detect import detect
from mscli.inventory.inventory import Inventory
from mscli.paths import Places, hub_cache, shipped_profiles
from mscli.planning.known import Availability, Known, Observation
from mscli.planning.plan import ENGINE_INSTALLABLE, ENGINE_MISSING, ENGINE_READY

Located = Installation | Adopted | MscliError
# From release 13 on, CUDA compiles for nothing older.
_NEEDED_BY_CUDA_13 = (7, 5)


@frozen
class Snapshot(Known):
    """What was seen, as the planner takes it. `rivals`: marks of our own instances that were known at that moment.
    `found`: the engines that were looked for, by name and device, so that no program is asked its version twice."""

    rivals: tuple[str, ...] = ()
    found: Mapping[tuple[str, str], Located] = field(default_factory=dict)


def see(
    places: Places,
    engines: Iterable[tuple[str, str]],
    replaced: str | None = None,
    gpus: bool = True,
    adopt: bool = False,
    installed_only: bool = False,
) -> Snapshot:
    """Look at this machine. `engines`: those that matter, each with the device (gpu, cpu). `replaced`: the instance
    whose memory will come back first. `gpus` False: NVML is left alone, for what runs on the CPU. `adopt`: the version
    of a server that runs counts, where the engine has one. `installed_only`: an engine that is not here is missing,
    also one that mscli could install. Reads /proc and files; waits for programs to tell their version."""
    known = Records(places).all()[0]
    inventory = detect(hub_cache(), gpus=gpus)
    wanted = sorted((name, device) for name, device in set(engines) if name in STARTABLE)
    found = {(name, device): located(name, device, inventory, adopt) for name, device in wanted}
    return Snapshot(
        inventory=inventory,
        claims=claims(known, replaced),
        facts=load_gpus(shipped_profiles()) if inventory.devices else {},
        versions=versions_of(found),
        observations=load_observations(places),
        rivals=tuple(record.mark for record in known),
        found=found,
        engines={
            (name, device): availability(name, there, device, inventory, installed_only)
            for (name, device), there in found.items()
        },
    )


def versions_of(found: Mapping[tuple[str, str], Located]) -> dict[str, str]:
    """The versions of the engines that are here, those for GPUs first."""
    return {
        name: there.version
        for (name, _), there in sorted(found.items())  # cpu, then gpu
        if not isinstance(there, MscliError) and there.version
    }


def load_observations(places: Places) -> tuple[Observation, ...]:
    """What earlier starts really took, in order of time, for the next plan to learn from."""
    return load_lines(places.observations, Observation)


def located(name: str, device: str, inventory: Inventory, adopt: bool = False) -> Located:
    """An engine as it would be used here for a profile on `device`, or why there is none that can run there.

    `adopt`: a server that runs is used.
    """
    known = engine(name)
    try:
        if isinstance(known, Hosted) and (adopted := known.adopt() or (known.running() if adopt else None)):
            return adopted
        found = copy_of(known, device)
    except MscliError as fault:
        return fault
    return (unfit(found, inventory) if device == "gpu" else None) or found


def unfit(found: Installation, inventory: Inventory) -> MscliError | None:
    """Why this copy of an engine cannot run on the GPUs here, by what it was built with; None where nothing says so."""

    def refused(seen: str, hint: str) -> MscliError:
        details: dict[str, object] = {"path": str(found.path), "cause": "backend_no_gpu_build"}
        return MscliError(Code.ENGINE_MISSING, f"{found.path} {seen}", hint, details)

    if found.gpu is False:
        hint = f"Install {found.engine} with CUDA in its place, or remove it: mscli can then install one."
        return refused("has no GPU code", hint)
    if found.cuda is None or not inventory.devices:
        return None
    driver = (inventory.cuda or "").partition(".")[0]
    if driver.isdigit() and int(driver) < found.cuda:
        seen = f"is built with CUDA {found.cuda}, and the driver offers CUDA {inventory.cuda}"
        return refused(seen, f"Install a newer driver, or a build of {found.engine} for CUDA {driver}.")
    old = [device for device in inventory.devices if _capability(device.compute_capability) < _NEEDED_BY_CUDA_13]
    if found.cuda >= 13 and not found.vulkan and len(old) == len(inventory.devices):
        seen = f"is built with CUDA {found.cuda}, which has no code for {old[0].name} ({old[0].compute_capability})"
        return refused(seen, f"Install a build of {found.engine} for CUDA 12.")
    return None


def _capability(text: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")) if text else _NEEDED_BY_CUDA_13


def availability(
    name: str, found: Located, device: str, inventory: Inventory, installed_only: bool = False
) -> Availability:
    """What `located` found, as the planner takes it: ready, installable by mscli, or missing with the reason."""
    if not isinstance(found, MscliError):
        return Availability(ENGINE_READY)
    if installed_only:
        return Availability(ENGINE_MISSING, found.message, found.hint)
    if isinstance(made := _offer(name, found, device, inventory), MscliError):
        return Availability(ENGINE_MISSING, made.message, made.hint)
    return Availability(ENGINE_INSTALLABLE)


def offered(name: str, missing: MscliError, device: str, inventory: Inventory) -> Offer:
    """What mscli installs of an engine that is `missing` for a profile on `device`. Raises, where it cannot, the error
    of the missing engine with both reasons."""
    made = _offer(name, missing, device, inventory)
    if not isinstance(made, MscliError):
        return made
    if made is missing:
        raise missing
    message = f"{missing.message}; mscli cannot install it here: {made.message}"
    raise MscliError(missing.code, message, made.hint, {**missing.details, **made.details})


def _offer(name: str, missing: MscliError, device: str, inventory: Inventory) -> Offer | MscliError:
    """What mscli would install, or why it cannot.

    A copy that the user names, or that is first on PATH and does not run, is never gone round.
    """
    if name not in INSTALLABLE or "path" in missing.details or "cause" in missing.details:
        return missing
    try:
        return offer(name, device, inventory)
    except MscliError as reason:
        return reason


def installed(name: str) -> str | None:
    """The version of an engine as it would be used here; None where there is none, or it does not tell."""
    if name not in STARTABLE:
        return None
    known = engine(name)
    try:
        adopted = known.adopt() if isinstance(known, Hosted) else None
        return (adopted or known.locate()).version
    except MscliError:
        return None


def elsewhere(on: str, free: str | None = None, ram: str | None = None) -> Inventory:
    """The machine that `on` names: cards in words ("2x RTX 4090"), or a YAML file with gpus, free, used and ram.

    `free` and `ram` override ("22 GiB"). Raises USAGE for an unknown card or size, PROFILE_INVALID for a broken file.
    """
    from mscli.planning.described_machine import MachineFile, machine, read_machine  # for this alone

    path = Path(on)
    described = read_machine(path) if path.suffix in (".yaml", ".yml") else MachineFile(on, None, 0, None)
    return machine(
        described.gpus,
        load_gpus(shipped_profiles()),
        _bytes("--free", free) or described.free_bytes,
        _bytes("--ram", ram) or described.ram_bytes,
        described.used_bytes,
    )


def imagine(inventory: Inventory) -> Snapshot:
    """The snapshot of a machine that is not here: nothing runs on it, and the newest engines are assumed."""
    return Snapshot(inventory, facts=load_gpus(shipped_profiles()))


def _bytes(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    from mscli.catalog.types import parse_size

    try:
        return parse_size(text)
    except ValueError as fault:
        raise MscliError(Code.USAGE, f"{option}: {fault}", f'Write it as {option} "22 GiB".') from fault
