"""Checks of the GPUs themselves: readable, free of faults, not held by others, not hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps

from mscli.diagnosis.causes import CAUSES
from mscli.doctor.checks.check import Check, Look, Seen, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.gpu.faults import ecc, faults
from mscli.doctor.checks.gpu.health import LOST, health, lost
from mscli.doctor.checks.gpu.links import nccl, peers
from mscli.doctor.checks.gpu.wording import together
from mscli.doctor.checks.gpu.xid import OFF_BUS, XID
from mscli.doctor.checks.host.kernel_log import kernel_log
from mscli.inventory.inventory import Gpu, Holder
from mscli.planning.figures import gib

# vLLM's own share is nine tenths of a GPU: less than this free, and plans shrink by more than a desktop explains.
_FREE_SHARE = 0.8
_HOT_C = 90


def on_gpus(look: Look) -> Look:
    """A look for which NVML must show GPUs: without them it is skipped, as the driver's checks tell why."""

    @wraps(look)
    def looked(ctx: CheckContext) -> Iterator[Seen]:
        if ctx.inventory.nvml is not None:
            yield skipped("NVML does not answer (see driver.nvml)")
        elif not ctx.inventory.gpus:
            yield skipped("NVML shows no GPU (see driver.nvml)")
        else:
            yield from look(ctx)

    return looked


def _readable(ctx: CheckContext) -> Iterator[Seen]:
    gone, closed = lost(ctx), [gpu for gpu in ctx.inventory.gpus if _closed(gpu)]
    for gpu in gone:
        lines = kernel_log(ctx).lines
        shown = [line.text for line in lines if OFF_BUS.search(line.text) or XID.search(line.text)][-3:]
        problem = next(problem for problem in gpu.problems if problem.code in LOST)
        seen = f"GPU {gpu.index} no longer answers ({problem.code}): it fell off the bus or needs a reset"
        yield fail("xid", seen, CAUSES["xid"][1], problem.message, *shown, command="sudo reboot")
    for gpu in closed:
        remedy = "Open its /dev/nvidia* to this user, or leave it out with CUDA_VISIBLE_DEVICES."
        seen = f"this user may not open GPU {gpu.index}"
        told = fail if len(closed) == len(ctx.inventory.gpus) else warn
        yield told("permissions", seen, remedy, gpu.problems[0].message)
    for gpu in ctx.inventory.gpus:
        if gpu not in (*gone, *closed) and (code := _unopened(gpu)):
            yield warn(None, f"GPU {gpu.index} cannot be opened: {code}", CAUSES["xid"][1])
    names = [(gpu.index, gpu.name) for gpu in ctx.inventory.gpus if not _unopened(gpu)]
    if names:
        yield ok(f"NVML reads {together(names)}")


def _closed(gpu: Gpu) -> bool:
    return any((problem.field, problem.code) == ("handle", "NO_PERMISSION") for problem in gpu.problems)


def _unopened(gpu: Gpu) -> str | None:
    return next((problem.code for problem in gpu.problems if problem.field == "handle"), None)


def _free(ctx: CheckContext) -> Iterator[Seen]:
    ours = _our_processes(ctx)
    told, busy = [], False
    for gpu in ctx.inventory.gpus:
        total, free, reserved = gpu.memory_total_bytes, gpu.memory_free_bytes, gpu.memory_reserved_bytes or 0
        if not total or free is None:
            continue
        own = sum(holder.used_bytes or 0 for holder in gpu.holders if holder.pid in ours)
        figures = f"{gib(free)} of {gib(total)} free"
        holders = [_named(holder, ours) for holder in sorted(gpu.holders, key=lambda one: -(one.used_bytes or 0))]
        if (free + own) / (total - reserved) < _FREE_SHARE:
            busy = True
            by = f"held by {holders[0]}" if holders else "the driver does not tell who holds the rest"
            yield warn("gpu_busy", f"GPU {gpu.index}: {figures}, {by}", CAUSES["gpu_busy"][1], *holders)
        else:
            told.append((gpu.index, figures + (f" (held: {', '.join(holders[:3])})" if own else "")))
    if told:
        yield ok(together(told))
    elif not busy:
        yield skipped("the GPUs tell no memory of their own (they share the host's, or do not answer)")


def _our_processes(ctx: CheckContext) -> dict[int, str]:
    """The processes of our own running instances, by pid."""
    from mscli.instances.records import group

    holding = {holder.pid for gpu in ctx.inventory.gpus for holder in gpu.holders}
    records = ctx.records if holding else ()
    return {pid: record.name for record in records if record.stopped_at is None for pid in group(record)}


def _named(holder: Holder, ours: dict[int, str]) -> str:
    if holder.pid in ours:
        who = f"our instance {ours[holder.pid]}"
    else:
        who = (holder.command or "a process of another container or user")[:80]
        who = f"{who} (user {holder.user})" if holder.user else who
    used = f", {gib(holder.used_bytes)}" if holder.used_bytes is not None else ""
    return f"{who}, pid {holder.pid}{used}"


def _slowed(ctx: CheckContext) -> Iterator[Seen]:
    found = {one.index: one for one in health(ctx)}
    calm = True
    for gpu in ctx.inventory.gpus:
        why = list(found[gpu.index].slowed) if gpu.index in found else []
        if gpu.temperature_c is not None and gpu.temperature_c >= _HOT_C:
            why.append(f"{gpu.temperature_c} C")
        if why:
            calm = False
            remedy = "Check fans, dust, airflow and the power cables and supply; answers are slow until then."
            yield warn(None, f"GPU {gpu.index} is slowed down: {'; '.join(why)}", remedy)
    for one in found.values():
        if one.pcie_width and one.pcie_max_width and one.pcie_width * 4 <= one.pcie_max_width:
            calm = False
            seen = f"GPU {one.index} is on {one.pcie_width} PCIe lanes of {one.pcie_max_width}"
            yield warn(None, seen, "Loading and several GPUs are slow: check the slot, the riser and how it is seated.")
    if calm:
        yield ok("no GPU is slowed down by heat, power or its slot")


def _mig(ctx: CheckContext) -> Iterator[Seen]:
    cut = [gpu for gpu in ctx.inventory.gpus if gpu.mig.mode == "on"]
    for gpu in cut:
        parts = gpu.mig.instances
        largest = max((part.memory_total_bytes or 0 for part in parts), default=0)
        remedy = CAUSES["mig"][1]
        if not parts:
            yield warn("mig", f"GPU {gpu.index} is in MIG mode without any instance: CUDA shows nothing of it", remedy)
        else:
            seen = f"GPU {gpu.index} is cut into {len(parts)} MIG instances, the largest of {gib(largest)}"
            yield warn("mig", f"{seen}; a process can use one", remedy, *(part.uuid for part in parts[:8]))
    if not cut:
        yield ok("no GPU is cut into MIG instances")


def _visible(ctx: CheckContext) -> Iterator[Seen]:
    seen = ctx.inventory
    value, problems = seen.visible_devices, [one for one in seen.problems if one.field == "visible_devices"]
    for problem in problems:
        told = fail if not seen.devices else warn
        code = "mig" if problem.code == "one_instance" else "visible_devices"
        yield told(code, problem.message, CAUSES["visible_devices"][1])
    if problems:
        return
    if value is None:
        yield ok("CUDA_VISIBLE_DEVICES is not set: CUDA may use every GPU")
    elif not seen.devices:
        remedy = "Unset it, unless the CPU is what you want."
        told = fail if ctx.chosen and ctx.chosen.profile.device == "gpu" else warn
        yield told("visible_devices", f"CUDA_VISIBLE_DEVICES={value!r} hides every GPU", remedy)
    else:
        yield ok(f"CUDA_VISIBLE_DEVICES={value} leaves {len(seen.devices)} of {len(seen.gpus)} GPUs")


# What a compute capability lacks that engines ask for, from the oldest up. vLLM's documents ask for 7.5 and newer.
_WHEELS = (7, 5)
_LACKS = (
    ((8, 0), "no BF16 and no FP8: FP16, W4A16 or GGUF instead"),
    ((8, 9), "FP8 runs weight-only, without its speed"),
)


def _capability(ctx: CheckContext) -> Iterator[Seen]:
    told, old = [], False
    for gpu in ctx.inventory.gpus:
        if gpu.compute_capability is None:
            continue
        found, name = tuple(map(int, gpu.compute_capability.split("."))), gpu.compute_capability
        if found < _WHEELS:
            old = True
            remedy = "Use llama.cpp or Ollama with a GGUF, or an older vLLM built for this GPU."
            yield warn(
                "compute_capability",
                f"GPU {gpu.index}: {name}, too old for vLLM's wheels, which begin with 7.5",
                remedy,
            )
            continue
        lacks = next((f", {what}" for least, what in _LACKS if found < least), "")
        told.append((gpu.index, f"{name}{lacks}"))
    if told:
        yield ok(f"compute capability of {together(told)}")
    elif not old:
        yield skipped("no GPU tells its compute capability")


_LOOKS: tuple[tuple[str, Callable[[CheckContext], Iterator[Seen]]], ...] = (
    ("gpu.readable", _readable),
    ("gpu.faults", faults),
    ("gpu.ecc", ecc),
    ("gpu.visible", _visible),
    ("gpu.mig", _mig),
    ("gpu.free", _free),
    ("gpu.slowed", _slowed),
    ("gpu.capability", _capability),
    ("gpu.peers", peers),
    ("gpu.nccl", nccl),
)
CHECKS = tuple(Check(name, on_gpus(look)) for name, look in _LOOKS)
