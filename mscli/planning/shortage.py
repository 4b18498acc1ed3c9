"""A refusal for memory in words: what is needed, what is free, what is missing, and who holds it."""

from __future__ import annotations

from dataclasses import replace

from mscli.inventory.inventory import Holder
from mscli.planning.figures import gib, tokens
from mscli.planning.memory.footprint import Configuration, Footprint, Room
from mscli.planning.plan import TIGHT, GpuMemory, NoFit
from mscli.planning.request import Request
from mscli.planning.search import Shortage, fits, measure, usable_bytes


def explain(request: Request, short: Shortage, unable: tuple[str, ...]) -> NoFit:
    """The NoFit of a shortage. `unable`: why further devices could not be used at all."""
    usable = usable_bytes(request, short.config, short.rooms)
    footprints = measure(request, short.config, short.rooms, usable)
    worst = max(range(len(short.rooms)), key=lambda i: footprints[i].needed_bytes - usable[i])
    holders = _holders(request, short)
    reasons = (_figures(short, worst, footprints[worst], usable[worst]), *holders, *unable)
    profile = request.profile
    return NoFit(
        profile.name, profile.engine, request.model.name, request.variant.name, reasons, short.missing_bytes,
        memory=tuple(_bar(room, one) for room, one in zip(short.rooms, footprints, strict=True)),
        cause="gpu_busy" if holders else _cause(footprints[worst], usable[worst]),
    )  # fmt: skip


def _cause(one: Footprint, usable: int) -> str:
    """Whether all but the KV cache would fit."""
    return "oom_kv" if one.needed_bytes - one.kv_bytes <= usable else "oom_weights"


def _bar(room: Room, one: Footprint) -> GpuMemory:
    return GpuMemory(
        room.gpu, room.uuid, room.name, room.total_bytes, room.free_bytes, room.total_bytes - room.free_bytes,
        one.weights_bytes, one.projector_bytes, one.kv_bytes, one.compute_bytes, one.graphs_bytes, one.runtime_bytes,
        room.free_bytes - one.needed_bytes,
    )  # fmt: skip


def _figures(short: Shortage, index: int, one: Footprint, usable: int) -> str:
    config, room = short.config, short.rooms[index]
    split = f" on each of {len(short.rooms)} GPUs" if len(short.rooms) > 1 else ""
    parts = f"weights {gib(one.weights_bytes + one.projector_bytes)}, {config.kv_type} KV {gib(one.kv_bytes)}"
    other = gib(one.compute_bytes + one.graphs_bytes + one.runtime_bytes)
    return (
        f"{gib(one.needed_bytes)} needed{split} at {_load(config)} ({parts}, compute and runtime {other}); "
        f"GPU {room.gpu} ({room.name}) has {gib(room.free_bytes)} free, {gib(max(0, usable))} of them usable: "
        f"{gib(short.missing_bytes)} missing"
    )


def _load(config: Configuration) -> str:
    load = tokens(config.context) if config.users == 1 else f"{config.users} x {tokens(config.context)}"
    return f"{load} with every layer in host memory" if config.host_layers else load


def _holders(request: Request, short: Shortage) -> tuple[str, ...]:
    """Who holds the memory, when the same cards would do if they were empty."""
    empty = [replace(room, free_bytes=room.cuda_total_bytes) for room in short.rooms]
    if not fits(request, short.config, empty, TIGHT):
        return ()
    return tuple(_held(room) for room in short.rooms if room.cuda_total_bytes - room.free_bytes > 0 and room.holders)


def _held(room: Room) -> str:
    named = ", ".join(_holder(holder) for holder in sorted(room.holders, key=lambda item: -(item.used_bytes or 0))[:5])
    return f"GPU {room.gpu} would do if it were empty; it is held by {named}"


def _holder(holder: Holder) -> str:
    size = gib(holder.used_bytes) if holder.used_bytes is not None else "unknown size"
    command = f" {holder.command}" if holder.command else ""
    container = f" in container {holder.container}" if holder.container else ""
    return f"pid {holder.pid}{command}{container} ({size})"
