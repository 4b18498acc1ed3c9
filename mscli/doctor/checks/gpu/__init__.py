"""Checks of the GPUs: readable, free of faults, not held by others, not hidden, and how they reach each other.

Faults come from the kernel's log and from their own counters: Xid, fallen off the bus, memory errors. Source of the Xid
numbers: NVIDIA, "Xid Errors" (the catalogue in the GPU deployment and management documents), as far as they tell a
model's user what to do.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from mscli.doctor.checks.check import Check, CheckContext, Finding, fail, gpus, ok, skipped, together, warn
from mscli.doctor.checks.host import Line, ago, kernel_log
from mscli.frozen import frozen
from mscli.inventory.detect import GONE
from mscli.inventory.health import Health
from mscli.inventory.host import text_of
from mscli.inventory.inventory import Gpu, Holder, Link
from mscli.planning.plan import gib

# vLLM's own share is nine tenths of a GPU: less than this free, and plans shrink by more than a desktop explains.
_FREE_SHARE = 0.8
_HOT_C = 90
_UNSET = "unset CUDA_VISIBLE_DEVICES"


def _readable(ctx: CheckContext) -> Iterator[Finding]:
    gone, closed = ctx.lost_gpus, [gpu for gpu in ctx.inventory.gpus if _closed(gpu)]
    for gpu in gone:
        lines = kernel_log(ctx).lines
        shown = [line.text for line in lines if OFF_BUS.search(line.text) or XID.search(line.text)][-3:]
        problem = next(problem for problem in gpu.problems if problem.code in GONE)
        seen = f"GPU {gpu.index} does not respond ({problem.code}): fell off the bus or needs a reset"
        yield fail("xid", seen, None, problem.message, *shown, command="sudo reboot")
    for gpu in closed:
        remedy = "Give this user access to its /dev/nvidia*, or leave it out with CUDA_VISIBLE_DEVICES."
        seen = f"no permission to open GPU {gpu.index}"
        severity = fail if len(closed) == len(ctx.inventory.gpus) else warn
        yield severity("permissions", seen, remedy, gpu.problems[0].message)
    for gpu in ctx.inventory.gpus:
        if gpu not in (*gone, *closed) and (code := _unopened(gpu)):
            yield warn(None, f"cannot open GPU {gpu.index}: {code}", None)
    names = [(gpu.index, gpu.name) for gpu in ctx.inventory.gpus if not _unopened(gpu)]
    if names:
        yield ok(together(names))


def _closed(gpu: Gpu) -> bool:
    return any((problem.field, problem.code) == ("handle", "NO_PERMISSION") for problem in gpu.problems)


def _unopened(gpu: Gpu) -> str | None:
    return next((problem.code for problem in gpu.problems if problem.field == "handle"), None)


def _free(ctx: CheckContext) -> Iterator[Finding]:
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
            by = f"used by {holders[0]}" if holders else "processes unknown"
            yield warn("gpu_busy", f"GPU {gpu.index}: {figures} ({by})", None, *holders)
        else:
            told.append((gpu.index, figures + (f" (used by {', '.join(holders[:3])})" if own else "")))
    if told:
        yield ok(together(told))
    elif not busy:
        yield skipped("GPU memory unknown (shared with the host, or no answer)")


def _our_processes(ctx: CheckContext) -> dict[int, str]:
    """The processes of our own running instances, by pid."""
    from mscli.instances.records import group

    holding = {holder.pid for gpu in ctx.inventory.gpus for holder in gpu.holders}
    records = ctx.records if holding else ()
    return {pid: record.name for record in records if record.stopped_at is None for pid in group(record)}


def _named(holder: Holder, ours: dict[int, str]) -> str:
    if holder.pid in ours:
        who = f"instance {ours[holder.pid]}"
    else:
        who = (holder.command or "another container or user")[:80]
        who = f"{who} (user {holder.user})" if holder.user else who
    used = f", {gib(holder.used_bytes)}" if holder.used_bytes is not None else ""
    return f"PID {holder.pid}: {who}{used}"


def _slowed(ctx: CheckContext) -> Iterator[Finding]:
    found = {one.index: one for one in ctx.health}
    calm = True
    for gpu in ctx.inventory.gpus:
        why = list(found[gpu.index].slowed) if gpu.index in found else []
        if gpu.temperature_c is not None and gpu.temperature_c >= _HOT_C:
            why.append(f"{gpu.temperature_c} C")
        if why:
            calm = False
            remedy = "Check cooling, power cables and power supply; generation is slow until then."
            yield warn(None, f"GPU {gpu.index} throttled ({'; '.join(why)})", remedy)
    for one in found.values():
        if one.pcie_width and one.pcie_max_width and one.pcie_width * 4 <= one.pcie_max_width:
            calm = False
            seen = f"GPU {one.index} uses {one.pcie_width} of {one.pcie_max_width} PCIe lanes"
            yield warn(None, seen, "Check slot, riser and seating; loading and multi-GPU are slow until then.")
    if calm:
        yield ok("no GPU throttled by heat, power or PCIe lanes")


def _mig(ctx: CheckContext) -> Iterator[Finding]:
    cut = [gpu for gpu in ctx.inventory.gpus if gpu.mig.mode == "on"]
    for gpu in cut:
        parts = gpu.mig.instances
        largest = max((part.memory_total_bytes or 0 for part in parts), default=0)
        if not parts:
            yield warn("mig", f"GPU {gpu.index}: MIG mode on, no MIG instance (invisible to CUDA)", None)
        else:
            seen = f"GPU {gpu.index}: {len(parts)} MIG instances, largest {gib(largest)} (a process can use one)"
            yield warn("mig", seen, None, *(part.uuid for part in parts[:8]))
    if not cut:
        yield ok("no MIG instances")


def _visible(ctx: CheckContext) -> Iterator[Finding]:
    seen = ctx.inventory
    value, problems = seen.visible_devices, [one for one in seen.problems if one.field == "visible_devices"]
    for problem in problems:
        severity = fail if not seen.devices else warn
        code = "mig" if problem.code == "one_instance" else "visible_devices"
        yield severity(code, problem.message, None)
    if problems:
        return
    if value is None:
        yield ok("CUDA_VISIBLE_DEVICES not set: all GPUs visible")
    elif not seen.devices:
        remedy = "Unset it, unless you want to run on the CPU:"
        severity = fail if ctx.chosen and ctx.chosen.profile.device == "gpu" else warn
        yield severity("visible_devices", f"CUDA_VISIBLE_DEVICES={value!r} hides all GPUs", remedy, command=_UNSET)
    else:
        yield ok(f"CUDA_VISIBLE_DEVICES={value}: {len(seen.devices)} of {len(seen.gpus)} GPUs visible")


# What a compute capability lacks that engines ask for, from the oldest up. vLLM's documents ask for 7.5 and newer.
_WHEELS = (7, 5)
_LACKS = (((8, 0), "no BF16 or FP8 (use FP16, W4A16 or GGUF)"), ((8, 9), "FP8 weight-only"))


def _capability(ctx: CheckContext) -> Iterator[Finding]:
    told, old = [], False
    for gpu in ctx.inventory.gpus:
        if gpu.compute_capability is None:
            continue
        found, name = tuple(map(int, gpu.compute_capability.split("."))), gpu.compute_capability
        if found < _WHEELS:
            old = True
            remedy = "Use llama.cpp or Ollama with a GGUF, or an older vLLM built for this GPU."
            yield warn(
                "compute_capability", f"GPU {gpu.index}: compute capability {name} (vLLM wheels need 7.5)", remedy
            )
            continue
        lacks = next((f", {what}" for least, what in _LACKS if found < least), "")
        told.append((gpu.index, f"{name}{lacks}"))
    if told:
        yield ok(f"compute capability of {together(told)}")
    elif not old:
        yield skipped("compute capability unknown")


# An IOMMU that translates addresses sends transfers between GPUs through the root complex, where they hang or corrupt
# data; in pass-through ("identity") it does not. Source: NVIDIA, NCCL user guide, "PCI Access Control Services".
_TRANSLATED = ("DMA", "DMA-FQ")
_NO_P2P = "export NCCL_P2P_DISABLE=1"


def peers(ctx: CheckContext) -> Iterator[Finding]:
    """Peer-to-peer between the cards, and what breaks it although the driver offers it."""
    links = ctx.inventory.links
    if not links:
        yield skipped("one GPU: no peer check" if len(ctx.inventory.gpus) == 1 else "GPU links unknown")
        return
    translated = [link for link in links if link.p2p and not link.nvlinks and _translated(ctx, link)]
    if translated and ctx.env.get("NCCL_P2P_DISABLE") != "1":
        which = ", ".join(f"{link.first}-{link.second}" for link in translated)
        remedy = "Boot with iommu=pt or without IOMMU; until then:"
        yield warn("p2p", f"transfers between GPUs {which} may hang (IOMMU translation)", remedy, command=_NO_P2P)
        return
    kinds: dict[str, list[str]] = {}
    for link in links:
        kinds.setdefault(_link_words(link), []).append(f"{link.first}-{link.second}")
    yield ok("; ".join(f"GPUs {_pairs(pairs)}: {how}" for how, pairs in kinds.items()), *_mixed(ctx))


def _pairs(pairs: list[str]) -> str:
    return ", ".join(pairs) if len(pairs) <= 3 else f"{pairs[0]} and {len(pairs) - 1} more pairs"


def _link_words(link: Link) -> str:
    how = f"{link.nvlinks} NVLinks" if link.nvlinks else f"PCIe ({link.path})"
    p2p = {True: "peer-to-peer", False: "no peer-to-peer (through host memory)", None: "peer-to-peer unknown"}
    return f"{how}, {p2p[link.p2p]}"


def _mixed(ctx: CheckContext) -> tuple[str, ...]:
    names = sorted({gpu.name for gpu in ctx.inventory.gpus if gpu.name != "unknown"})
    return (f"mixed GPUs: {', '.join(names)} (tensor parallel is limited by the smallest)",) if len(names) > 1 else ()


def _translated(ctx: CheckContext, link: Link) -> bool:
    pair = (gpu for gpu in ctx.inventory.gpus if gpu.index in (link.first, link.second))
    return any(_iommu(ctx.root, gpu) in _TRANSLATED for gpu in pair)


def _iommu(root: Path, gpu: Gpu) -> str:
    """How the IOMMU treats a GPU (DMA, DMA-FQ, identity); empty without one. NVML writes the domain with 8 digits."""
    address = (gpu.pci_bus_id or "").lower()[4:]
    return text_of(root / "sys/bus/pci/devices" / address / "iommu_group/type").strip() if address else ""


def nccl(ctx: CheckContext) -> Iterator[Finding]:
    """NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME must name an interface that is there."""
    folder = ctx.root / "sys/class/net"
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    wrong = [text for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME") if (text := _absent(ctx, name, present))]
    severity = fail if len(ctx.inventory.gpus) > 1 else warn
    for text in wrong:
        yield severity("nccl", text, f"Unset it, or use one of: {', '.join(present)}.")
    if wrong:
        return
    settings = sorted(f"{name}={value}" for name, value in ctx.env.items() if name.startswith("NCCL_"))
    yield ok(f"NCCL settings: {', '.join(settings)}" if settings else "no NCCL_* overrides")


def _absent(ctx: CheckContext, variable: str, present: list[str]) -> str | None:
    """NCCL takes a list of prefixes; '=' in front makes them whole names, '^' excludes them. Gloo takes whole names."""
    value = ctx.env.get(variable)
    if not value or not present or value.startswith("^"):
        return None
    whole = value.startswith("=") or variable.startswith("GLOO")
    names = [name.partition(":")[0] for name in value.lstrip("=").split(",") if name]
    if any(there == name or (not whole and there.startswith(name)) for name in names for there in present):
        return None
    return f"{variable}={value}: no such network interface"


_ROW_SET_ASIDE = 63


def faults(ctx: CheckContext) -> Iterator[Finding]:
    """Xid and 'fallen off the bus' since the machine started. A GPU that is lost now is told of by gpu.readable."""
    log = kernel_log(ctx)
    if log.refused:
        yield skipped(f"cannot read the kernel log ({log.refused})")
        return
    found = [line for line in log.lines if _whose(line) in ("gpu", "program")]
    hard = [line for line in found if _whose(line) == "gpu"]
    if ctx.lost_gpus:
        yield skipped("a GPU is lost (see gpu.readable)")
    elif recent := [line for line in hard if line.recent]:
        yield fail("xid", _told(recent), None, *(line.text for line in recent[-5:]))
    elif hard:
        yield warn("xid", _told(hard), None, *(line.text for line in hard[-5:]))
    elif recent := [line for line in found if line.recent]:
        remedy = "Usually a bug in a program; if several programs are affected, test the GPU:"
        yield warn("xid", _told(recent), remedy, *(line.text for line in recent[-5:]), command="dcgmi diag -r 3")
    else:
        yield ok(f"no GPU faults in the kernel log ({log.source})")


def _whose(line: Line) -> str | None:
    if told := xid_of(line.text):
        return told[1].whose
    return "gpu" if OFF_BUS.search(line.text) else None


def _told(lines: list[Line]) -> str:
    """The last one in words, and how many there were."""
    last = lines[-1]
    told = xid_of(last.text)
    what = f"Xid {told[0]}, {told[1].meaning}" if told else "a GPU fell off the bus or did not start"
    more = f" ({len(lines)} entries)" if len(lines) > 1 else ""
    return f"{what}, {ago(last)}{more}"


def ecc(ctx: CheckContext) -> Iterator[Finding]:
    """Memory errors: NVML's counters, and the kernel's log for the Xids that go with them."""
    lines = [line for line in kernel_log(ctx).lines if _whose(line) == "memory"]
    shown = tuple(line.text for line in lines[-3:])
    told = [seen for one in ctx.health if (seen := _judged(one, shown))]
    severe = [line for line in lines if line.recent and (xid_of(line.text) or (0,))[0] != _ROW_SET_ASIDE]
    yield from told
    if told:
        return
    if severe:
        yield fail("ecc", _told(severe), None, *shown)
    elif lines:
        yield warn("ecc", _told(lines), None, *shown)
    elif any(one.uncorrected is not None or one.repair_pending is not None for one in ctx.health):
        ever = sum(one.uncorrected_ever or 0 for one in ctx.health)
        yield ok("no uncorrected memory errors" + (f" since the driver was loaded ({ever} in total)" if ever else ""))
    else:
        log = "" if kernel_log(ctx).refused else ", none in the kernel log"
        yield ok(f"no ECC memory error counters{log}")


def _judged(one: Health, shown: tuple[str, ...]) -> Finding | None:
    reset = f"sudo nvidia-smi --gpu-reset -i {one.index}"
    if one.repair_failed:
        seen = f"GPU {one.index}: row remapping failed (no spare memory left)"
        return fail("ecc", seen, "Replace the GPU.", *shown)
    if one.uncorrected:
        seen = f"GPU {one.index}: {one.uncorrected} uncorrected memory errors since the driver was loaded"
        return fail("ecc", seen, None, *shown, command=reset)
    if one.repair_pending:
        remedy = "Stop what uses it, then reset it:"
        return warn("ecc", f"GPU {one.index}: row remapping pending until a reset", remedy, *shown, command=reset)
    return None


# "NVRM: Xid (PCI:0000:b3:00): 79, pid=1234, GPU has fallen off the bus."
XID = re.compile(r"NVRM: Xid \(([^)]*)\): (\d+)")
# Without any Xid: three lines of NVRM, of which the last says so.
OFF_BUS = re.compile(r"fallen off\s+the\s+bus|RmInitAdapter failed|rm_init_adapter failed")
# Xid 154 is also written when a GPU needs nothing (any more).
NO_ACTION = re.compile(r"\): 154,.*\(None\)")


@frozen
class Xid:
    """`whose`: program (a program did it, the GPU is well), memory (ECC), gpu (hardware or driver)."""

    meaning: str
    whose: str


UNKNOWN = Xid("see NVIDIA's Xid documentation", "gpu")


@cache
def xids() -> Mapping[int, Xid]:
    """The table of xid.csv."""
    with Path(__file__).with_name("xid.csv").open(newline="") as file:
        return {int(row["number"]): Xid(row["meaning"], row["whose"]) for row in csv.DictReader(file)}


def xid_of(text: str) -> tuple[int, Xid] | None:
    """The Xid in a line of the kernel's log."""
    found = XID.search(text)
    if found is None or NO_ACTION.search(text):
        return None
    number = int(found[2])
    return number, xids().get(number, UNKNOWN)


CHECKS = (
    Check("gpu.readable", _readable, needs=gpus),
    Check("gpu.faults", faults, needs=gpus),
    Check("gpu.ecc", ecc, needs=gpus),
    Check("gpu.visible", _visible, needs=gpus),
    Check("gpu.mig", _mig, needs=gpus),
    Check("gpu.free", _free, needs=gpus),
    Check("gpu.slowed", _slowed, needs=gpus),
    Check("gpu.capability", _capability, needs=gpus),
    Check("gpu.peers", peers, needs=gpus),
    Check("gpu.nccl", nccl, needs=gpus),
)
