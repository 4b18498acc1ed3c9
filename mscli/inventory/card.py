"""One GPU through NVML: its Gpu value, and the handle and NVLink lanes from which links are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from mscli.inventory.fields import Fields
from mscli.inventory.holders import holder
from mscli.inventory.inventory import Gpu, Holder, Mig, MigInstance


@dataclass(frozen=True)
class Lane:
    """An active NVLink lane: the PCI address at its far end, and whether that is an NVSwitch. None: unknown."""

    remote: str | None
    switch: bool | None


@dataclass(frozen=True)
class Card:
    """A GPU with its NVML handle (None: the driver would not open it)."""

    gpu: Gpu
    handle: Any
    lanes: tuple[Lane, ...]


@dataclass(frozen=True)
class Memory:
    """Bytes. `used` leaves out `reserved` where the driver tells them apart."""

    total: int | None = None
    used: int | None = None
    free: int | None = None
    reserved: int | None = None


def read_card(nvml: ModuleType, index: int, proc: Path, alone: bool) -> Card:
    """Everything NVML tells of GPU `index`. `proc`: where its holders are looked up. `alone`: lanes do not matter."""
    opening = Fields(nvml)
    handle = opening.read("handle", lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    device = opening.part("", handle)
    memory = _memory(device)
    capability = device.read("compute_capability", nvml.nvmlDeviceGetCudaComputeCapability)
    lanes = () if alone else tuple(_lanes(device))
    gpu = Gpu(
        index=index,
        uuid=device.read("uuid", nvml.nvmlDeviceGetUUID) or "",
        name=device.read("name", nvml.nvmlDeviceGetName) or "unknown",
        pci_bus_id=device.read("pci_bus_id", lambda gpu: nvml.nvmlDeviceGetPciInfo_v3(gpu).busId),
        memory_total_bytes=memory.total,
        memory_used_bytes=memory.used,
        memory_free_bytes=memory.free,
        memory_reserved_bytes=memory.reserved,
        unified_memory=any((problem.field, problem.code) == ("memory", "NOT_SUPPORTED") for problem in device.problems),
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        utilisation_percent=device.read("utilisation_percent", lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
        temperature_c=device.read("temperature_c", lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, 0)),
        power_w=device.read("power_w", lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
        power_limit_w=device.read("power_limit_w", lambda gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000),
        mig=_mig(device, proc),
        holders=_holders(device, proc),
        problems=tuple(device.problems),  # last: every read above may add to them
        visible=False,
    )
    return Card(gpu, handle, lanes)


def _memory(device: Fields) -> Memory:
    nvml = device.nvml
    memory = device.read(
        "memory",
        lambda handle: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2),
        nvml.nvmlDeviceGetMemoryInfo,
    )
    if memory is None:
        return Memory()
    return Memory(memory.total, memory.used, memory.free, getattr(memory, "reserved", None))


def _mig(gpu: Fields, proc: Path) -> Mig:
    nvml = gpu.nvml
    unsupported = dict.fromkeys((nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND), "unsupported")
    mode = gpu.read("mig", lambda handle: ("off", "on")[nvml.nvmlDeviceGetMigMode(handle)[0]], instead=unsupported)
    if mode != "on":
        return Mig(mode or "unknown", ())
    places = gpu.read("mig", nvml.nvmlDeviceGetMaxMigDeviceCount) or 0
    instances = [_instance(gpu, place, proc) for place in range(places)]
    return Mig("on", tuple(instance for instance in instances if instance))


def _instance(gpu: Fields, place: int, proc: Path) -> MigInstance | None:
    """The MIG instance at a place of the GPU, None for an empty one."""
    nvml, empty = gpu.nvml, {gpu.nvml.NVML_ERROR_NOT_FOUND: None}
    handle = gpu.read("mig", lambda whole: nvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, place), instead=empty)
    if handle is None:
        return None
    part = gpu.part(f"mig[{place}].", handle)
    memory = _memory(part)
    return MigInstance(
        index=place,
        uuid=part.read("uuid", nvml.nvmlDeviceGetUUID) or "",
        name=part.read("name", nvml.nvmlDeviceGetName) or "unknown",
        memory_total_bytes=memory.total,
        memory_used_bytes=memory.used,
        memory_free_bytes=memory.free,
        holders=_holders(part, proc),
        gpu_instance=part.read("gpu_instance", nvml.nvmlDeviceGetGpuInstanceId),
        compute_instance=part.read("compute_instance", nvml.nvmlDeviceGetComputeInstanceId),
    )


def _holders(device: Fields, proc: Path) -> tuple[Holder, ...]:
    """Compute and graphics processes, each once. The bindings' unversioned calls raise errors of another kind."""
    nvml, none = device.nvml, list[Any]()
    compute = device.read(
        "holders", nvml.nvmlDeviceGetComputeRunningProcesses_v3, nvml.nvmlDeviceGetComputeRunningProcesses_v2
    )
    graphics = device.read(
        "holders",
        nvml.nvmlDeviceGetGraphicsRunningProcesses_v3,
        nvml.nvmlDeviceGetGraphicsRunningProcesses_v2,
        instead={nvml.NVML_ERROR_NOT_SUPPORTED: none},  # a device that draws nothing, such as a MIG instance
    )
    used: dict[int, int | None] = {}
    for process in (*(compute or ()), *(graphics or ())):
        used[process.pid] = max(used.get(process.pid) or 0, process.usedGpuMemory or 0) or None
    return tuple(holder(pid, used_bytes, proc) for pid, used_bytes in used.items())


def _lanes(gpu: Fields) -> Iterator[Lane]:
    """The active NVLink lanes. They are numbered from 0; the driver refuses numbers past the last one."""
    nvml = gpu.nvml
    past = dict.fromkeys((nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_INVALID_ARGUMENT))
    for number in range(nvml.NVML_NVLINK_MAX_LINKS):
        active = gpu.read("nvlinks", partial(nvml.nvmlDeviceGetNvLinkState, link=number), instead=past)
        if active is None:
            return
        if active:
            yield _lane(gpu, number)


def _lane(gpu: Fields, number: int) -> Lane:
    nvml = gpu.nvml
    unknown = dict.fromkeys((nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND))
    remote = gpu.read("nvlinks", lambda handle: nvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, number).busId)
    kind = gpu.read("nvlinks", lambda handle: nvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, number), instead=unknown)
    return Lane(remote, None if kind is None else kind == nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH)
