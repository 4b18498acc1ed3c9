"""The devices that can be planned on: what each has left for a new instance, and which to try together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from mscli.frozen import frozen, replace
from mscli.inventory.inventory import Device, Holder, Inventory, Link
from mscli.planning.plan import GIB, Claim, Refusal


@frozen
class Room:
    """One device with what is left on it. `total_bytes` is NVML's; `free_bytes` is what a new process may take, after
    what our own instances are about to take. `correction_bytes`: what earlier starts here took beyond the formulas."""

    gpu: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: str | None
    mig: bool
    holders: tuple[Holder, ...]
    unified: bool = False
    correction_bytes: int = 0
    spills: bool = False

    @property
    def cuda_total_bytes(self) -> int:
        """What CUDA calls the card's total."""
        return cuda_total(self.total_bytes)

    def grown(self, more_bytes: int) -> Room:
        """The same device with `more_bytes` more free memory, as a bigger card where it has no room for them."""
        free = self.free_bytes + more_bytes
        return replace(self, free_bytes=free, total_bytes=max(self.total_bytes, nvml_total(free)))


def cuda_total(nvml_total_bytes: int) -> int:
    """CUDA's total: NVML's less the driver's reserve, 2 % up to 0.6 GiB.

    Source: published pairs, 24.00 -> 23.58 GiB (RTX 3090), 19.99 -> 19.6 (RTX 4000 SFF Ada), 79.65 -> 79.19 (H100),
    80.0 -> 79.25 (A100), 95.59 -> 94.97 (RTX PRO 6000).
    """
    return nvml_total_bytes - min(nvml_total_bytes // 50, 6 * GIB // 10)


def nvml_total(cuda_total_bytes: int) -> int:
    """The smallest NVML total whose CUDA total is at least `cuda_total_bytes`."""
    return cuda_total_bytes + min(cuda_total_bytes // 49 + 1, 6 * GIB // 10)


Group = tuple[Room, ...]

# How close two GPUs are, best first (NVML's topology levels).
PATHS = ("internal", "single-switch", "multiple-switches", "host-bridge", "node", "system", "unknown")


def rooms(inventory: Inventory, claims: Sequence[Claim] = ()) -> tuple[tuple[Room, ...], tuple[str, ...]]:
    """(devices that can be planned on, why others cannot), in the inventory's order."""
    usable: list[Room] = []
    unknown: list[str] = []
    for device in inventory.devices:
        total, free, unified = _memory(device, inventory)
        if total is None or free is None:
            unknown.append(f"GPU {device.gpu} ({device.name}): memory size unknown, so it is not used")
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


def requested(names: Sequence[str], rooms: Sequence[Room]) -> Group | Refusal:
    """The devices that `names` (indices or UUIDs, a UUID's beginning suffices) mean, in that order."""
    found: list[Room] = []
    for name in names:
        matches = [room for room in rooms if _means(name, room) and room not in found]
        if not matches:
            seen = ", ".join(f"{room.gpu} ({room.name})" for room in rooms) or "none"
            return Refusal((f"--gpus {name}: no such GPU (visible: {seen})",), _first(rooms), "visible_devices")
        found.append(matches[0])
    return tuple(found)


def _means(name: str, room: Room) -> bool:
    return name == str(room.gpu) or (len(name) > 4 and room.uuid.lower().startswith(name.lower()))


def _first(rooms: Sequence[Room]) -> str | None:
    return f"--gpus {rooms[0].gpu}" if rooms else None


def candidates(count: int, rooms: Sequence[Room], inventory: Inventory) -> tuple[Group, ...]:
    """Groups of `count` devices worth trying: the best linked one, then the one with the most free memory.

    MIG instances cannot reach each other, and GPUs that live in the host's memory share it: both stand alone.
    """
    if count == 1:
        return tuple((room,) for room in _roomiest(rooms)[:1])
    whole = [room for room in rooms if not (room.mig or room.unified)]
    if len(whole) < count:
        return ()
    roomiest = tuple(sorted(_roomiest(whole)[:count], key=lambda room: room.gpu))
    linked = _best_linked(count, whole, inventory.links)
    return (linked,) if linked == roomiest else (linked, roomiest)


def _roomiest(rooms: Sequence[Room]) -> list[Room]:
    return sorted(rooms, key=lambda room: (-room.free_bytes, room.gpu))


def _best_linked(count: int, rooms: Sequence[Room], links: Sequence[Link]) -> Group:
    """Most alike, best connected, most free memory on the fullest device, lowest indices."""
    if not links:
        return _most_alike(count, rooms)
    found = {frozenset((link.first, link.second)): link for link in links}

    def rank(group: Group) -> tuple[int, float, int, int, tuple[int, ...]]:
        pairs = [found.get(frozenset((a.gpu, b.gpu))) for a, b in combinations(group, 2)]
        alike = len({room.name for room in group})
        lanes = min((link.nvlinks if link else 0) for link in pairs)
        far = max(PATHS.index(link.path) if link and link.path in PATHS else len(PATHS) for link in pairs)
        return (alike, -lanes, far, -min(room.free_bytes for room in group), tuple(room.gpu for room in group))

    return min(combinations(rooms, count), key=rank)


def _most_alike(count: int, rooms: Sequence[Room]) -> Group:
    """Cards of one kind if there are enough of it, else the ones with the most free memory."""
    ordered = _roomiest(rooms)
    for room in ordered:
        same = [other for other in ordered if other.name == room.name]
        if len(same) >= count:
            return tuple(sorted(same[:count], key=lambda room: room.gpu))
    return tuple(sorted(ordered[:count], key=lambda room: room.gpu))


def link_remarks(group: Group, links: Sequence[Link]) -> tuple[str, ...]:
    """What the connection between the chosen GPUs means, in words."""
    members = {room.gpu for room in group}
    inside = [link for link in links if {link.first, link.second} <= members]
    if len(group) < 2 or not inside:
        return ()
    if all(link.nvlinks for link in inside):
        return ("GPUs connected by NVLink",)
    if any(link.p2p is False for link in inside):
        return ("no peer access between the GPUs: traffic goes through host memory",)
    return ("GPUs connected by PCIe: less than twice the speed of one",)
