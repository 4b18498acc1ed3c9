"""The largest useful context on given devices: f16 KV first, then smaller types, then layers left in host memory; or,
in words, what is short and who holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from mscli.frozen import frozen, replace
from mscli.inventory.inventory import Holder
from mscli.planning.devices import Room
from mscli.planning.memory import Configuration, Footprint
from mscli.planning.plan import GIB, MIB, SAFE, TIGHT, GpuMemory, NoFit, gib, tokens
from mscli.planning.request import Request

ROUNDING = 256
# A plan is safe with 8 % of the card or 1.2 GiB left, tight from 3 %: the formulas' own uncertainty, and what desktops
# take on the side. Below, the first large request or the next browser tab ends it.
SAFE_SHARE, TIGHT_SHARE = 0.08, 0.03
AMPLE = 12 * GIB // 10


@frozen
class Attempt:
    """One configuration on one group of devices. `verdict` is safe or tight."""

    config: Configuration
    rooms: tuple[Room, ...]
    verdict: str


@frozen
class Shortage:
    """The smallest configuration within the limits, which still does not fit."""

    request: Request
    config: Configuration
    rooms: tuple[Room, ...]

    @cached_property
    def missing_bytes(self) -> int:
        """How much more free memory it takes on every GPU."""
        return missing(self.request, self.config, self.rooms)


def margin(verdict: str, room: Room) -> int:
    """Bytes that must stay free on a device for this verdict; where the driver spills silently always 1.2 GiB: a plan
    386 MiB over was measured to run 13.7 times slower instead of failing."""
    if room.spills:
        return AMPLE
    share = SAFE_SHARE if verdict == SAFE else TIGHT_SHARE
    return min(int(share * room.total_bytes), AMPLE)


def measure(
    request: Request, config: Configuration, rooms: Sequence[Room], usable: Sequence[int]
) -> tuple[Footprint, ...]:
    """The engine's footprints, corrected by what was learned on these cards."""
    found = request.memory.footprints(config, rooms, usable)
    return tuple(
        replace(one, runtime_bytes=max(0, one.runtime_bytes + room.correction_bytes)) if room.correction_bytes else one
        for one, room in zip(found, rooms, strict=True)
    )


def slack(request: Request, config: Configuration, rooms: Sequence[Room], verdict: str) -> int:
    """Bytes left on the fullest device beside footprint and margin, or below the engine's own limit; < 0: short."""
    usable = usable_bytes(request, config, rooms, verdict)
    found = measure(request, config, rooms, usable)
    return min(most - one.needed_bytes for one, most in zip(found, usable, strict=True))


def usable_bytes(
    request: Request, config: Configuration, rooms: Sequence[Room], verdict: str = TIGHT
) -> tuple[int, ...]:
    """The most that may be taken on each device: what is free less the margin, and no more than the engine's limit."""
    limits = request.memory.limits(config, rooms)
    return tuple(min(limit, room.free_bytes - margin(verdict, room)) for limit, room in zip(limits, rooms, strict=True))


def fits(request: Request, config: Configuration, rooms: Sequence[Room], verdict: str) -> bool:
    """Whether the configuration stays within every device's free memory and the engine's own limits."""
    return slack(request, config, rooms, verdict) >= 0


def attempt(request: Request, rooms: Sequence[Room], kv_types: Sequence[str]) -> Attempt | Shortage:
    """The best configuration for these devices, or the smallest one, which does not fit."""
    group = tuple(rooms)
    floors = {kind: slack(request, request.configuration(request.floor, kind), group, TIGHT) for kind in kv_types}
    possible = [kind for kind in kv_types if floors[kind] >= 0]
    if possible or request.offload:
        config = _safe(request, group, possible, kv_types)
        if config:
            return Attempt(config, group, SAFE)
        if possible:
            return Attempt(request.configuration(request.floor, possible[0]), group, TIGHT)
        config = _offloaded(request, group, kv_types, request.floor, TIGHT)
        if config:
            return Attempt(config, group, TIGHT)
    host_layers = request.model.architecture.text.layers if request.offload else 0
    smallest = max(kv_types, key=lambda kind: floors[kind])
    return Shortage(request, request.configuration(request.floor, smallest, host_layers), group)


def _safe(
    request: Request, rooms: tuple[Room, ...], possible: Sequence[str], kv_types: Sequence[str]
) -> Configuration | None:
    """The best safe configuration: all on the GPUs, else, where it is allowed, with as few layers as need be beside."""
    config = safest(request, possible, lambda config: slack(request, config, rooms, SAFE))
    goal = request.target or request.floor
    if request.offload and (config is None or config.context < goal):
        return _offloaded(request, rooms, kv_types, goal, SAFE) or config
    return config


def safest(
    request: Request, kv_types: Sequence[str], slack_bytes: Callable[[Configuration], int]
) -> Configuration | None:
    """The first KV type that holds a comfortable context; when none does, the one that holds most.

    The first type goes as far as memory lets it, the smaller ones only up to the comfortable context: so more memory
    never shortens the context. When context counts most, or one type was asked for, the longest of all is taken.
    """
    best: Configuration | None = None
    for kind in kv_types:
        found = longest(
            lambda count, kind=kind: slack_bytes(request.configuration(count, kind)),  # type: ignore[misc]
            request.floor,
            request.ceiling,
        )
        if found is None:
            continue
        if request.prefer != "context" and found >= request.comfortable:
            first = kind == request.kv_types[0]
            return request.configuration(found if first else request.comfortable, kind)
        if best is None or found > best.context:
            best = request.configuration(found, kind)
    return best


def longest(slack_bytes: Callable[[int], int], low: int, high: int) -> int | None:
    """The longest context from `low` to `high` whose slack is not negative: `low`, `high` or a multiple of 256 between.

    Memory grows almost linearly with the context, so interpolating finds it in two or three steps. None when `low`
    itself does not fit.
    """
    short = slack_bytes(high)
    if short >= 0:
        return high
    left = slack_bytes(low)
    if left < 0:
        return None
    first, last = low // ROUNDING, -(-high // ROUNDING)
    while last - first > 1:
        guess = first + (last - first) * left // (left - short)
        step = min(max(guess, first + 1), last - 1)
        found = slack_bytes(step * ROUNDING)
        if found >= 0:
            first, left = step, found
        else:
            last, short = step, found
    return max(low, first * ROUNDING)


def last_true(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number from `low` to `high` that `holds`, which holds up to some number; low - 1 if none does."""
    low -= 1
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _offloaded(
    request: Request, rooms: tuple[Room, ...], kv_types: Sequence[str], context: int, verdict: str
) -> Configuration | None:
    """The fewest layers in host memory with which the context fits, with the first KV type that can."""
    layer_count = request.model.architecture.text.layers
    for kind in kv_types:
        on_gpu = last_true(
            lambda count, kind=kind: fits(  # type: ignore[misc]
                request, request.configuration(context, kind, layer_count - count), rooms, verdict
            ),
            0,
            layer_count - 1,
        )
        if on_gpu >= 0:
            return request.configuration(context, kind, layer_count - on_gpu)
    return None


def missing(request: Request, config: Configuration, rooms: tuple[Room, ...]) -> int:
    """The fewest bytes of further free memory on every device that make the configuration fit, to the MiB.

    Every further byte helps by less than one where an engine uses only a share of the card: followed along the slope.
    """

    def short(more: int) -> int:
        return -slack(request, config, [room.grown(more) for room in rooms], TIGHT)

    below, more, lacking = 0, 0, short(0)
    while lacking > 0:
        below = more
        step = max(lacking, MIB)
        left = short(more + step)
        if 0 < left < lacking:
            below, step = more + step, step * lacking // (lacking - left) + 1
            left = short(more + step)
        more, lacking = more + step, left
    whole = -(-more // MIB)
    if lacking > -MIB // 2:  # one MiB less would be too few
        return whole * MIB
    return (last_true(lambda mib: short(mib * MIB) > 0, below // MIB, whole) + 1) * MIB


def explain(request: Request, short: Shortage, unable: tuple[str, ...]) -> NoFit:
    """The NoFit of a shortage. `unable`: why further devices could not be used at all."""
    usable = usable_bytes(request, short.config, short.rooms)
    footprints = measure(request, short.config, short.rooms, usable)
    worst = max(range(len(short.rooms)), key=lambda i: footprints[i].needed_bytes - usable[i])
    holders = _holders(request, short)
    reasons = (_figures(short, worst, footprints[worst], usable[worst]), *holders, *unable)
    return request.refused(
        reasons,
        short.missing_bytes,
        memory=tuple(gpu_memory(room, one) for room, one in zip(short.rooms, footprints, strict=True)),
        cause="gpu_busy" if holders else _cause(footprints[worst], usable[worst]),
    )


def _cause(one: Footprint, usable: int) -> str:
    """Whether all but the KV cache would fit."""
    return "oom_kv" if one.needed_bytes - one.kv_bytes <= usable else "oom_weights"


def gpu_memory(room: Room, footprint: Footprint, spare_bytes: int = 0) -> GpuMemory:
    """One GPU's bar: what the plan takes, what others hold, what is left."""
    return GpuMemory(
        gpu=room.gpu, uuid=room.uuid, name=room.name, total_bytes=room.total_bytes, free_bytes=room.free_bytes,
        held_bytes=room.total_bytes - room.free_bytes, weights_bytes=footprint.weights_bytes,
        projector_bytes=footprint.projector_bytes, kv_bytes=footprint.kv_bytes,
        compute_bytes=footprint.compute_bytes, graphs_bytes=footprint.graphs_bytes,
        runtime_bytes=footprint.runtime_bytes, margin_bytes=room.free_bytes - footprint.needed_bytes,
        kv_spare_bytes=spare_bytes, correction_bytes=room.correction_bytes,
    )  # fmt: skip


def _figures(short: Shortage, index: int, one: Footprint, usable: int) -> str:
    config, room = short.config, short.rooms[index]
    split = f" on each of {len(short.rooms)} GPUs" if len(short.rooms) > 1 else ""
    parts = f"weights {gib(one.weights_bytes + one.projector_bytes)}, {config.kv_type} KV {gib(one.kv_bytes)}"
    other = gib(one.compute_bytes + one.graphs_bytes + one.runtime_bytes)
    return (
        f"{gib(one.needed_bytes)} needed{split} at {_load(config)} ({parts}, compute and runtime {other}); "
        f"GPU {room.gpu} ({room.name}) has {gib(room.free_bytes)} free ({gib(max(0, usable))} usable): "
        f"{gib(short.missing_bytes)} short"
    )


def _load(config: Configuration) -> str:
    load = tokens(config.context) if config.users == 1 else f"{config.users} x {tokens(config.context)}"
    return f"{load} with all layers in host memory" if config.host_layers else load


def _holders(request: Request, short: Shortage) -> tuple[str, ...]:
    """Who holds the memory, when it would fit if the same cards were idle."""
    empty = [replace(room, free_bytes=room.cuda_total_bytes) for room in short.rooms]
    if not fits(request, short.config, empty, TIGHT):
        return ()
    return tuple(_held(room) for room in short.rooms if room.cuda_total_bytes - room.free_bytes > 0 and room.holders)


def _held(room: Room) -> str:
    named = ", ".join(_holder(holder) for holder in sorted(room.holders, key=lambda item: -(item.used_bytes or 0))[:5])
    return f"would fit if GPU {room.gpu} were idle; in use by {named}"


def _holder(holder: Holder) -> str:
    size = gib(holder.used_bytes) if holder.used_bytes is not None else "unknown size"
    command = f" {holder.command}" if holder.command else ""
    container = f" in container {holder.container}" if holder.container else ""
    return f"PID {holder.pid}{command}{container} ({size})"
