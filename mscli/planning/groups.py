"""Which devices to try together: best linked first, and the ones with the most free memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from mscli.inventory.inventory import Inventory, Link
from mscli.planning.memory.footprint import Room
from mscli.planning.request import Refusal, Request

Group = tuple[Room, ...]

# How close two GPUs are, best first (NVML's topology levels).
PATHS = ("internal", "single-switch", "multiple-switches", "host-bridge", "node", "system", "unknown")


def wished(names: Sequence[str], rooms: Sequence[Room]) -> Group | Refusal:
    """The devices that `names` (indices or UUIDs, a UUID's beginning suffices) mean, in that order."""
    found: list[Room] = []
    for name in names:
        matches = [room for room in rooms if _means(name, room) and room not in found]
        if not matches:
            seen = ", ".join(f"{room.gpu} ({room.name})" for room in rooms) or "none"
            return Refusal(
                (f"--gpus {name}: no such GPU among the visible ones: {seen}",), _first(rooms), "visible_devices"
            )
        found.append(matches[0])
    return tuple(found)


def _means(name: str, room: Room) -> bool:
    return name == str(room.gpu) or (len(name) > 4 and room.uuid.lower().startswith(name.lower()))


def _first(rooms: Sequence[Room]) -> str | None:
    return f"--gpus {rooms[0].gpu}" if rooms else None


def counts(request: Request) -> tuple[int, ...]:
    """Numbers of GPUs to try. With tensor parallelism both head counts must divide (or one KV head is copied)."""
    return tuple(count for count in request.profile.gpus if divides(request, count))


def divides(request: Request, count: int) -> bool:
    """Whether the model can be split over `count` GPUs by this engine."""
    if request.memory.split == "layer":
        return True
    text = request.model.architecture.text
    heads = text.heads % count == 0 and text.ffn % count == 0
    return heads and (text.kv_heads % count == 0 or count % text.kv_heads == 0)


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
        return ("the GPUs are joined by NVLink",)
    if any(link.p2p is False for link in inside):
        return ("the GPUs cannot read each other's memory: their traffic goes through the host",)
    return ("the GPUs are joined by PCIe: expect less than twice one card's speed",)
