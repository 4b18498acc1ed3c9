"""One profile on this machine, on its GPUs or on its CPU: a Plan, or a NoFit that says which number breaks.

Pure: the same inventory, overrides and claims always give the same verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.frozen import replace
from mscli.inventory.inventory import Inventory
from mscli.planning import search
from mscli.planning.devices import Group, Room, candidates, link_remarks, requested
from mscli.planning.known import Known, correction_bytes
from mscli.planning.memory import Configuration
from mscli.planning.plan import GIB, SAFE, TIGHT, GpuMemory, NoFit, Overrides, Plan, Refusal, gib, tokens
from mscli.planning.request import Request, resolve
from mscli.planning.requirements import (
    hidden_cause,
    image_remarks,
    kv_types,
    machine_cause,
    machine_refusals,
    machine_remarks,
    no_device_cause,
    refusals,
    remarks,
)
from mscli.planning.search import (
    AMPLE,
    SAFE_SHARE,
    TIGHT_SHARE,
    Attempt,
    Shortage,
    attempt,
    explain,
    gpu_memory,
    measure,
    safest,
    usable_bytes,
)
from mscli.planning.speed import predict


def plan_once(profile: Profile, model: Model, overrides: Overrides, known: Known) -> Plan | NoFit:
    """The verdict on one profile, without a search for the nearest overrides that works. Where the least context that
    is wanted does not fit, the longest that does is planned."""
    outcome = _seeing_or_not(profile, model, overrides, known)
    if isinstance(outcome, Plan) or overrides.least_context is None:
        return outcome
    return _seeing_or_not(profile, model, replace(overrides, least_context=None, prefer="context"), known)


MOST_FOR_IMAGES = 0.2


"""The share of the context that a plan may give up to take images."""


def _seeing_or_not(profile: Profile, model: Model, overrides: Overrides, known: Known) -> Plan | NoFit:
    """The verdict with the profile's images; where it may drop them and they cost too much, without. It says which."""
    seeing = _within(profile, model, overrides, known)
    if overrides.images is not None or not (profile.images and profile.drop_images):
        return seeing
    text = _within(profile, model, replace(overrides, images=0), known)
    if isinstance(text, NoFit):
        return _closest(seeing, text)
    if isinstance(seeing, NoFit):
        short = f"text only: {gib(seeing.missing_bytes)} short with images"
        return replace(text, steps=(*text.steps, short), images_dropped=True)
    if seeing.verdict != SAFE and text.verdict == SAFE:
        return replace(
            text, steps=(*text.steps, "text only: images would leave little memory free"), images_dropped=True
        )
    cost = text.context - seeing.context
    if cost > MOST_FOR_IMAGES * text.context:
        more = f"{seeing.context:,} of {tokens(text.context)} with images"
        return replace(text, steps=(*text.steps, f"text only: the context would be {more}"))
    if cost > 0:
        kept = f"with images, which take {cost:,} of {tokens(text.context)} (--images 0 leaves them out)"
        return replace(seeing, reasons=(*seeing.reasons, kept))
    return seeing


def _closest(seeing: Plan | NoFit, text: NoFit) -> Plan | NoFit:
    """What comes closest, where no plan for text alone fits either."""
    if isinstance(seeing, Plan) or not 0 < text.missing_bytes < seeing.missing_bytes:
        return seeing
    return replace(text, reasons=(*text.reasons, f"with images: {gib(seeing.missing_bytes)} short"))


def _within(profile: Profile, model: Model, overrides: Overrides, known: Known) -> Plan | NoFit:
    """The verdict on one profile within its limits and the overrides."""
    request = resolve(profile, model, overrides, known.versions.get(profile.engine))
    if isinstance(request, Refusal):
        return NoFit(
            profile.name,
            profile.engine,
            model.name,
            overrides.variant or profile.variant,
            request.reasons,
            0,
            request.nearest,
            cause=request.cause,
        )
    if problems := machine_refusals(request, known.inventory):
        return request.refused(problems, cause=machine_cause(request, known.inventory))
    if profile.device == "cpu":
        return plan_on_cpu(request, known.inventory, machine_remarks(request, known.inventory))
    return _on_gpus(request, known)


def _on_gpus(request: Request, known: Known) -> Plan | NoFit:
    """Try the groups of devices in order; take the best: safe, most on GPUs, the longest context, the fewest GPUs."""
    found, unknown = known.rooms
    visible = tuple(_corrected(request, room, known) for room in found)
    if not visible:
        return request.refused(unknown or ("no GPU is visible",), cause=no_device_cause(known.inventory))
    able, unable = _able(request, visible)
    groups = _groups(request, visible if request.gpus else able, known.inventory)
    if isinstance(groups, Refusal):
        return request.refused((*groups.reasons, *unknown), 0, groups.nearest, cause=groups.cause)
    if request.gpus and (wrong := [reason for room in groups[0] for reason in refusals(request, room)]):
        return request.refused(tuple(wrong), cause="compute_capability")
    if not groups:
        return _none_to_try(request, able, unable, known.inventory)
    outcomes = list(_attempts(request, groups))
    plans = [outcome for outcome in outcomes if isinstance(outcome, Attempt)]
    if not plans:
        shortages = [outcome for outcome in outcomes if isinstance(outcome, Shortage)]
        return explain(request, min(shortages, key=lambda item: item.missing_bytes * len(item.rooms)), unable)
    best = max(plans, key=lambda plan: (plan.verdict == SAFE, -plan.config.host_layers, plan.config.context))
    if problem := ram_shortage(request, best.config, best.rooms, known.inventory):
        return request.refused((problem,), cause="host_ram")
    return _plan(request, best, known, _steps(request, best, outcomes))


def _corrected(request: Request, room: Room, known: Known) -> Room:
    """The room with what earlier starts of this profile on such a card took beyond the formulas."""
    profile = request.profile
    version = known.versions.get(profile.engine)
    more = correction_bytes(known.observations, room.name, profile.engine, version, profile.name)
    return replace(room, correction_bytes=more) if more else room


def _able(request: Request, visible: Sequence[Room]) -> tuple[tuple[Room, ...], tuple[str, ...]]:
    """(devices that can run the variant, why the others cannot)."""
    wrong = {room.uuid: refusals(request, room) for room in visible}
    able = tuple(room for room in visible if not wrong[room.uuid])
    return able, tuple(reason for room in visible for reason in wrong[room.uuid])


def _groups(request: Request, rooms: Sequence[Room], inventory: Inventory) -> list[Group] | Refusal:
    """The groups to try, in order. GPUs asked for by name are taken as they are."""
    if not request.gpus:
        return [group for count in request.gpu_counts for group in candidates(count, rooms, inventory)]
    group = requested(request.gpus, rooms)
    if isinstance(group, Refusal):
        return group
    if not request.divides_by(len(group)):
        heads = request.model.architecture.text.heads
        reason = f"{request.profile.engine} cannot split {heads} attention heads over {len(group)} GPUs"
        fewer = ",".join(request.gpus[: _largest_divisor(request, len(group))])
        return Refusal((reason,), f"--gpus {fewer}", "tp_divisibility")
    if len(group) > 1 and any(room.mig for room in group):
        return Refusal(("MIG instances cannot be combined: choose one",), f"--gpus {request.gpus[0]}", "mig")
    return [group]


def _largest_divisor(request: Request, count: int) -> int:
    return max(size for size in range(1, count + 1) if request.divides_by(size))


def _none_to_try(request: Request, able: Sequence[Room], unable: tuple[str, ...], inventory: Inventory) -> NoFit:
    """No group of devices has the number and the abilities that the profile asks for."""
    if unable:
        return request.refused(unable, cause="compute_capability")
    if not request.gpu_counts:
        cause: str | None = "tp_divisibility"
    elif any(room.mig for room in able):
        cause = "mig"
    elif any(not gpu.visible for gpu in inventory.gpus):
        cause = hidden_cause(inventory)
    else:  # it needs so many because the weights do not fit into fewer
        cause = "oom_weights"
    return request.refused(_too_few(request, able), cause=cause)


def _too_few(request: Request, able: Sequence[Room]) -> tuple[str, ...]:
    wanted = " or ".join(str(count) for count in request.gpu_counts) or "?"
    mig = " (MIG instances cannot be combined)" if any(room.mig for room in able) else ""
    return (f"profile {request.profile.name} needs {wanted} GPUs; {len(able)} can be used{mig}",)


def _attempts(request: Request, groups: Sequence[Group]) -> Iterator[Attempt | Shortage]:
    """One outcome per group, until fewer GPUs suffice or nothing more can be gained."""
    enough = 0
    for group in groups:
        if enough and len(group) != enough:
            return
        kinds = [kind for kind in request.kv_types if all(kind in kv_types(request, room) for room in group)]
        outcome = attempt(request, group, kinds or ["f16"])
        yield outcome
        if isinstance(outcome, Attempt) and outcome.verdict == SAFE and _reaches(request, outcome):
            if outcome.config.context >= request.ceiling:
                return
            enough = len(group)


def _reaches(request: Request, found: Attempt) -> bool:
    """Whether more devices could not make it better: the target is reached, or none was set and speed counts less."""
    wanted = request.cap if request.prefer == "context" else request.target or request.floor
    return found.config.context >= wanted and not found.config.host_layers


def _steps(request: Request, best: Attempt, outcomes: Sequence[Attempt | Shortage]) -> tuple[str, ...]:
    """The compromises made, in the order of preference."""
    steps: list[str] = []
    config, count = best.config, len(best.rooms)
    fewer = [item for item in outcomes if isinstance(item, Shortage) and len(item.rooms) < count]
    if fewer:
        nearly = max(fewer, key=lambda item: len(item.rooms))
        less = f"{len(nearly.rooms)} GPU{'s' if len(nearly.rooms) > 1 else ''}"
        steps.append(f"uses {count} GPUs: {gib(nearly.missing_bytes)} short on {less}")
    if config.kv_type != request.kv_types[0]:
        steps.append(_kv_step(request, best))
    if config.host_layers:
        steps.append(f"{config.host_layers} of {config.text.layers} layers stay in host memory, as requested: slow")
    if config.context < (request.target or request.cap):
        each = " each" if config.users > 1 else ""
        steps.append(
            f"context {config.context:,} of {tokens(request.target or request.cap)}{each} ({_limit(request, best)})"
        )
    return tuple(steps)


def _kv_step(request: Request, best: Attempt) -> str:
    """Why the KV cache has not the first type of the profile: a card cannot run it, or it holds less."""
    first, chosen = request.kv_types[0], best.config.kv_type
    unable = [room for room in best.rooms if first not in kv_types(request, room)]
    if unable:
        return f"{chosen} KV cache: {unable[0].name} cannot run {first}"
    return f"{chosen} KV cache: {first} would hold fewer tokens"


def _limit(request: Request, best: Attempt) -> str:
    """What ends the context: memory, or that a smaller KV type is used no further than for a comfortable length."""
    config, step = best.config, search.ROUNDING
    if config.kv_type != request.kv_types[0] and config.context == request.comfortable:
        longer = request.configuration(config.context + step, config.kv_type, config.host_layers)
        if search.fits(request, longer, best.rooms, best.verdict):
            return "--prefer context allows more"
    return "limited by free GPU memory"


def _plan(request: Request, best: Attempt, known: Known, steps: tuple[str, ...]) -> Plan:
    config, rooms = best.config, best.rooms
    usable = usable_bytes(request, config, rooms, best.verdict)
    footprints = measure(request, config, rooms, usable)
    cards = [known.cards[room.uuid] for room in rooms]
    settings = request.memory.settings(config, rooms, usable)
    spare = request.memory.spare(config, rooms, settings)
    memory = tuple(gpu_memory(*each) for each in zip(rooms, footprints, spare, strict=True))
    notes = (
        _because(best, memory), *request.notes, *image_remarks(request, config.context), *known.rooms[1],
        *dict.fromkeys(note for room in rooms for note in remarks(request, room)),
        *link_remarks(rooms, known.inventory.links), *machine_remarks(request, known.inventory),
    )  # fmt: skip
    return Plan(
        profile=request.profile.name, engine=request.profile.engine, model=request.model.name,
        variant=request.variant.name, verdict=best.verdict, reasons=notes, context=config.context,
        kv_type=config.kv_type, tensor_parallel=len(rooms) if request.memory.split == "tensor" else 1,
        images=request.images, users=request.users, gpus=tuple(room.gpu for room in rooms),
        devices=tuple(room.uuid for room in rooms), memory=memory,
        layers_on_gpu=config.text.layers + 1 - config.host_layers,
        host_bytes=request.memory.host(config, rooms).needed_bytes, settings=settings, steps=steps,
        speed=predict(config, request.profile.engine, request.memory, footprints, cards),
    )  # fmt: skip


def _because(best: Attempt, memory: Sequence[GpuMemory]) -> str:
    worst = min(memory, key=lambda item: item.margin_bytes)
    figures = (
        f"takes {gib(worst.free_bytes - worst.margin_bytes)} of the {gib(worst.free_bytes)} free on GPU {worst.gpu}"
    )
    left = f"{gib(worst.margin_bytes)} left"
    return f"{figures}, {left}" if best.verdict == SAFE else f"{figures}, only {left}: another program can exhaust it"


def _ram_margin(verdict: str, ram_bytes: int) -> int:
    share = SAFE_SHARE if verdict == SAFE else TIGHT_SHARE
    return min(int(share * ram_bytes), AMPLE)


def plan_on_cpu(request: Request, inventory: Inventory, remarks: tuple[str, ...]) -> Plan | NoFit:
    """The largest useful context in available RAM."""
    config = safest(request, request.kv_types, lambda config: _ram_slack(request, config, inventory, SAFE))
    if config:
        return _cpu_plan(request, config, inventory, SAFE, remarks)
    for kind in request.kv_types:
        config = request.configuration(request.floor, kind)
        if _ram_slack(request, config, inventory, TIGHT) >= 0:
            return _cpu_plan(request, config, inventory, TIGHT, remarks)
    return _cpu_refusal(request, inventory)


def _ram_slack(request: Request, config: Configuration, inventory: Inventory, verdict: str) -> int:
    host = inventory.host
    return (
        host.ram_available_bytes
        - _ram_margin(verdict, host.ram_total_bytes)
        - request.memory.host(config, ()).needed_bytes
    )


def _cpu_plan(
    request: Request, config: Configuration, inventory: Inventory, verdict: str, remarks: tuple[str, ...]
) -> Plan:
    needed = request.memory.host(config, ()).needed_bytes
    because = (
        f"runs on the CPU, takes {gib(needed)} of the {gib(inventory.host.ram_available_bytes)} of host memory free"
    )
    wanted = request.ceiling
    steps = (f"context {config.context:,} of {tokens(wanted)} (limited by free host memory)",)
    return Plan(
        profile=request.profile.name, engine=request.profile.engine, model=request.model.name,
        variant=request.variant.name, verdict=verdict, reasons=(because, *request.notes, *remarks),
        context=config.context, kv_type=config.kv_type, tensor_parallel=1, images=request.images, users=request.users,
        gpus=(), devices=(), memory=(), layers_on_gpu=0, host_bytes=needed,
        settings=request.memory.settings(config, (), ()), steps=steps if config.context < wanted else (),
    )  # fmt: skip


def _cpu_refusal(request: Request, inventory: Inventory) -> NoFit:
    smallest = min(
        request.memory.host(request.configuration(request.floor, kind), ()).needed_bytes for kind in request.kv_types
    )
    room = inventory.host.ram_available_bytes - _ram_margin(TIGHT, inventory.host.ram_total_bytes)
    reason = (
        f"{gib(smallest)} of host memory needed at {tokens(request.floor)}; "
        f"{gib(inventory.host.ram_available_bytes)} free: {gib(smallest - room)} short"
    )
    return request.refused((reason,), smallest - room, cause="host_ram")


def ram_shortage(request: Request, config: Configuration, rooms: Sequence[Room], inventory: Inventory) -> str | None:
    """Why the layers left in host memory do not fit there; None when they do."""
    if not config.host_layers:
        return None
    needed = request.memory.host(config, rooms).needed_bytes
    available = inventory.host.ram_available_bytes
    if needed + GIB <= available:
        return None
    short = gib(needed + GIB - available)
    return f"offloading needs {gib(needed)} of host memory plus 1 GiB; {gib(available)} free: {short} short"
