"""Planning for a machine that is not here: its inventory from words or a file, and the snapshot for a plan."""

from __future__ import annotations

from pathlib import Path

from mscli.catalog.gpus import load_gpus
from mscli.catalog.types import parse_size
from mscli.errors import Code, MscliError
from mscli.inventory.inventory import Inventory
from mscli.lifecycle.snapshot import Snapshot
from mscli.paths import shipped_profiles
from mscli.planning.described_machine import MachineFile, machine, read_machine


def elsewhere(on: str, free: str | None = None, ram: str | None = None) -> Inventory:
    """The machine that `on` names: cards in words ("2x RTX 4090"), or a YAML file with gpus, free, used and ram.

    `free` and `ram` override ("22 GiB"). Raises USAGE for an unknown card or size, PROFILE_INVALID for a broken file.
    """
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
    try:
        return parse_size(text)
    except ValueError as fault:
        raise MscliError(Code.USAGE, f"{option}: {fault}", f'Write it as {option} "22 GiB".') from fault
