"""One look at the machine: everything that planning needs to know, as one Inventory; and which devices CUDA shows of it
under CUDA_VISIBLE_DEVICES, in which order.

Written rules: CUDA programming guide, "CUDA environment variables"; MIG user guide, "CUDA device enumeration".
Unwritten ones as PyTorch's developers found them in driver 525 (pytorch pull request 92315): the first entry decides
whether the list holds indices or UUIDs, an index may carry trailing text ("1gpu" is 1), and a device named twice leaves
no device at all. A GPU in MIG mode is counted after the whole GPUs and stands for its first instance.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mscli.frozen import frozen, replace
from mscli.inventory.host import read_host
from mscli.inventory.inventory import Device, Gpu, Host, Inventory, MigInstance, Problem
from mscli.inventory.nvml import Answer, read_gpus

_NOT_ASKED = Problem("nvml", "not_asked", "GPUs not checked")


def detect(
    weights_dir: Path, env: Mapping[str, str] | None = None, root: Path = Path("/"), gpus: bool = True
) -> Inventory:
    """What this machine has. `weights_dir`: where weights would go, for the disk's free bytes.

    One NVML session per call; takes milliseconds unless the driver has to wake a GPU. Raises nothing for what is
    missing or broken: Inventory.nvml and the Problems tell it. `env` (default: this process's environment) is only
    read, for CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER. `root` stands for /. `gpus` False: NVML is left alone.
    """
    env = os.environ if env is None else env
    host = read_host(weights_dir, env, root)
    seen = read_gpus(root / "proc", host.surroundings) if gpus else Answer(failure=_NOT_ASKED)
    value = env.get("CUDA_VISIBLE_DEVICES")
    selection = select(value, env.get("CUDA_DEVICE_ORDER"), seen.gpus)
    shown = {slot.gpu.index for slot in selection.slots}
    return Inventory(
        driver=seen.driver,
        cuda=seen.cuda,
        nvml=seen.failure,
        gpus=tuple(replace(gpu, visible=gpu.index in shown) for gpu in seen.gpus),
        links=seen.links,
        devices=tuple(_device(slot, host) for slot in selection.slots),
        host=host,
        visible_devices=value,
        problems=(*seen.problems, *selection.problems),
    )


def _device(slot: Slot, host: Host) -> Device:
    """A slot as planning sees it. A GPU without memory of its own has the host's."""
    part, gpu = slot.instance or slot.gpu, slot.gpu
    total, free = part.memory_total_bytes, part.memory_free_bytes
    if gpu.unified_memory and slot.instance is None:
        total, free = host.ram_total_bytes, host.ram_available_bytes
    return Device(
        gpu=gpu.index,
        uuid=part.uuid,
        name=part.name,
        total_bytes=total,
        free_bytes=free,
        compute_capability=gpu.compute_capability,
        mig=slot.instance is not None,
        holders=part.holders,
    )


_END = -1
GONE = frozenset({"GPU_IS_LOST", "RESET_REQUIRED"})


@frozen
class Slot:
    """One CUDA device: a whole GPU (`instance` None) or one of its MIG instances."""

    gpu: Gpu
    instance: MigInstance | None


@frozen
class Selection:
    """The devices that CUDA may use, in its order, and what was odd about the list."""

    slots: tuple[Slot, ...]
    problems: tuple[Problem, ...]


def select(value: str | None, order: str | None, gpus: Sequence[Gpu]) -> Selection:
    """The devices that CUDA_VISIBLE_DEVICES=`value` leaves of `gpus` (in PCI order) under CUDA_DEVICE_ORDER=`order`.

    None (not set) leaves every usable device: whole GPUs first, then all MIG instances, of which a process uses one.
    Indices are taken in PCI order; where CUDA's own default order may differ, a Problem says so.
    """
    if value is None:
        whole_first = _by_ordinal(gpus)
        return Selection(tuple(slot for gpu in whole_first for slot in _slots(gpu)), ())
    if not gpus:
        return Selection((), ())
    entries, stop = _parse(value)
    if len(set(entries)) < len(entries):
        return _duplicate(value)
    found: list[Slot] = []
    for entry in entries:
        candidates = _candidates(entry, gpus)
        if len(candidates) != 1:
            stop = str(entry)
            break
        if candidates[0] in found:
            return _duplicate(value)
        found.append(candidates[0])
    problems = (*_stopped(value, stop, len(found)), *_order_unknown(entries, order, gpus), *_one_instance(found))
    return Selection(tuple(found), problems)


def _parse(value: str) -> tuple[list[int | str], str | None]:
    """The entries up to the first that is not of the first one's kind, and that one (None: all were read)."""
    prefix = value[:4] if value[:4] in ("GPU-", "MIG-") else None
    entries: list[int | str] = []
    for text in value.split(","):
        entry = (text if text.startswith(prefix) else None) if prefix else _index(text)
        if entry is None or entry == _END:
            return entries, text
        entries.append(entry)
    return entries, None


def _index(text: str) -> int | None:
    """The number at the start of an entry, _END for any negative one."""
    found = re.match(r"[+-]?[0-9]+", text.strip())
    return max(_END, int(found[0])) if found else None


def _candidates(entry: int | str, gpus: Sequence[Gpu]) -> list[Slot]:
    """The devices that an entry may mean: exactly one for a valid entry."""
    if isinstance(entry, int):
        return [slot for gpu in _by_ordinal(gpus)[entry : entry + 1] for slot in _slots(gpu)[:1]]
    if entry.startswith("GPU-"):
        return [slot for gpu in gpus if gpu.uuid.startswith(entry) for slot in _slots(gpu)[:1]]
    instances = [(slot, slot.instance) for gpu in gpus for slot in _slots(gpu) if slot.instance]
    older = [slot for slot, instance in instances if _older_name(slot.gpu, instance) == entry]
    return older or [slot for slot, instance in instances if instance.uuid.startswith(entry)]


def _by_ordinal(gpus: Sequence[Gpu]) -> list[Gpu]:
    """GPUs in the order of CUDA's indices. A lost GPU keeps its place; MIG mode without instances has none."""
    cut = [gpu for gpu in gpus if gpu.mig.mode == "on"]
    return [gpu for gpu in gpus if gpu not in cut] + [gpu for gpu in cut if gpu.mig.instances]


def _slots(gpu: Gpu) -> list[Slot]:
    """The CUDA devices of a GPU: none if it is lost or has no UUID, by which alone a device can be named safely."""
    if not gpu.uuid or any(problem.code in GONE for problem in gpu.problems):
        return []
    if gpu.mig.mode == "on":
        return [Slot(gpu, instance) for instance in gpu.mig.instances if instance.uuid]
    return [Slot(gpu, None)]


def _older_name(gpu: Gpu, instance: MigInstance) -> str:
    """The name of drivers before R470: MIG-GPU-<uuid>/<gpu instance>/<compute instance>."""
    return f"MIG-{gpu.uuid}/{instance.gpu_instance}/{instance.compute_instance}"


def _duplicate(value: str) -> Selection:
    message = f"CUDA_VISIBLE_DEVICES={value} lists a device twice, so CUDA shows none"
    return Selection((), (Problem("visible_devices", "duplicate", message),))


def _stopped(value: str, stop: str | None, kept: int) -> list[Problem]:
    """A negative index (and an empty value) ends the list on purpose; anything else is worth a word."""
    if stop is None or not value.strip() or _index(stop) == _END:
        return []
    message = (
        f"CUDA_VISIBLE_DEVICES={value}: CUDA stops at {stop!r}, which names no single usable device; {kept} before it"
    )
    return [Problem("visible_devices", "invalid_entry", message)]


def _order_unknown(entries: Sequence[int | str], order: str | None, gpus: Sequence[Gpu]) -> list[Problem]:
    """CUDA counts by its own guess of speed (FASTEST_FIRST) unless told otherwise: harmless between equal GPUs only."""
    kinds = {(gpu.name, gpu.compute_capability) for gpu in gpus if _slots(gpu)}
    by_index = any(isinstance(entry, int) for entry in entries)
    if order == "PCI_BUS_ID" or not by_index or len(kinds) < 2:
        return []
    message = (
        "CUDA_VISIBLE_DEVICES holds indices, and CUDA counts unlike GPUs from the fastest: which GPU an index means is "
        "unknown. mscli reads it in PCI order. Set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name the GPUs by UUID"
    )
    return [Problem("visible_devices", "ambiguous_order", message)]


def _one_instance(slots: Sequence[Slot]) -> list[Problem]:
    if len(slots) < 2 or all(slot.instance is None for slot in slots):
        return []
    message = (
        f"{len(slots)} devices are named, but a CUDA process uses one MIG instance only, and no whole GPU beside it"
    )
    return [Problem("visible_devices", "one_instance", message)]
