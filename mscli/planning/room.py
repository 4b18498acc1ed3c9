"""What each device has left for a new instance: NVML's free bytes, less what our own starting instances will still
take, plus what an instance to be replaced gives back."""

from __future__ import annotations

from collections.abc import Sequence

from mscli.inventory.inventory import Device, Inventory
from mscli.planning.memory.footprint import Room, cuda_total
from mscli.planning.plan import Claim


def rooms(inventory: Inventory, claims: Sequence[Claim] = ()) -> tuple[tuple[Room, ...], tuple[str, ...]]:
    """(devices that can be planned on, why others cannot), in the inventory's order."""
    usable: list[Room] = []
    unknown: list[str] = []
    for device in inventory.devices:
        total, free, unified = _memory(device, inventory)
        if total is None or free is None:
            unknown.append(f"GPU {device.gpu} ({device.name}): its memory is unknown, so nothing can be planned on it")
            continue
        free = max(0, min(free + _balance(device, claims), cuda_total(total)))
        usable.append(
            Room(
                device.gpu, device.uuid, device.name, total, free, device.compute_capability, device.mig,
                device.holders, unified, spills=inventory.host.surroundings == "wsl",
            )
        )  # fmt: skip
    return tuple(usable), tuple(unknown)


def _memory(device: Device, inventory: Inventory) -> tuple[int | None, int | None, bool]:
    """(total, free, unified). A GPU that shares the host's RAM has the host's figures."""
    unified = any(gpu.index == device.gpu and gpu.unified_memory for gpu in inventory.gpus)
    if unified and (device.total_bytes is None or device.free_bytes is None):
        return inventory.host.ram_total_bytes, inventory.host.ram_available_bytes, True
    return device.total_bytes, device.free_bytes, unified


def _balance(device: Device, claims: Sequence[Claim]) -> int:
    """Bytes to add to (or, negative, to take from) the free ones on account of our own instances on this device."""
    return sum(_claim_balance(device, claim) for claim in claims if claim.gpu_uuid == device.uuid)


def _claim_balance(device: Device, claim: Claim) -> int:
    held = _held_bytes(device, claim)
    return held if claim.replaced else -max(0, claim.planned_bytes - held)


def _held_bytes(device: Device, claim: Claim) -> int:
    """What the claim's processes hold now. Where the driver names holders without bytes (WSL, containers), memory in
    use that no other holder accounts for counts as the claim's, up to its plan."""
    own = [holder for holder in device.holders if holder.pid in claim.pids]
    known = sum(holder.used_bytes or 0 for holder in own)
    if all(holder.used_bytes is not None for holder in device.holders):
        return known
    if device.total_bytes is None or device.free_bytes is None:
        return known
    accounted = sum(holder.used_bytes or 0 for holder in device.holders)
    unnamed = max(0, device.total_bytes - device.free_bytes - accounted)
    return known + min(unnamed, max(0, claim.planned_bytes - known))
