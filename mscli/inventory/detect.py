"""One look at the machine: everything that planning needs to know, as one Inventory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mscli.inventory.host import look_at_host
from mscli.inventory.inventory import Device, Host, Inventory, Problem
from mscli.inventory.nvml import Seen, look
from mscli.inventory.visible import Slot, select

_NOT_ASKED = Problem("nvml", "not_asked", "the GPUs were not looked at")


def detect(
    weights_dir: Path, env: Mapping[str, str] | None = None, root: Path = Path("/"), gpus: bool = True
) -> Inventory:
    """What this machine has. `weights_dir`: where weights would go, for the disk's free bytes.

    One NVML session per call; takes milliseconds unless the driver has to wake a GPU. Raises nothing for what is
    missing or broken: Inventory.nvml and the Problems tell it. `env` (default: this process's environment) is only
    read, for CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER. `root` stands for /. `gpus` False: NVML is left alone.
    """
    env = os.environ if env is None else env
    host = look_at_host(weights_dir, env, root)
    seen = look(root / "proc", host.surroundings) if gpus else Seen(failure=_NOT_ASKED)
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
