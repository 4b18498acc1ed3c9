"""GPUs as the NVIDIA driver's library describes them, and the links between them, through the pynvml bindings. Never
through nvidia-smi. A call that fails costs its field and leaves a Problem, never the GPU."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from mscli.frozen import frozen, replace
from mscli.inventory.host import holder, text_of
from mscli.inventory.inventory import Clocks, Gpu, Holder, Link, Mig, MigInstance, Problem

T = TypeVar("T")


class Fields:
    """Reads through `nvml` (the pynvml module) what it tells of `subject`: nothing (the system), a handle, or two.

    What cannot be read becomes None and one of `problems`, whose field is `prefix` and the field's name. Nothing is
    asked of a handle that is None: that the driver would not open the GPU is one problem, not twelve.
    """

    def __init__(self, nvml: ModuleType, *subject: Any, prefix: str = "") -> None:
        self.nvml = nvml
        self.problems: list[Problem] = []
        self._subject = subject
        self._prefix = prefix

    def part(self, prefix: str, *subject: Any) -> Fields:
        """Fields of something inside this subject; their problems are added to this one's."""
        part = Fields(self.nvml, *subject, prefix=self._prefix + prefix)
        part.problems = self.problems
        return part

    def read(self, field: str, *calls: Callable[..., T], instead: Mapping[int, T] | None = None) -> T | None:
        """The answer, for the subject, of the first of `calls` (newest version first) that this driver knows.

        `instead`: what an NVML error code means where it is an answer rather than a failure.
        """
        if None in self._subject:
            return None
        for position, call in enumerate(calls, 1):
            try:
                return call(*self._subject)
            except self.nvml.NVMLError as error:
                if instead and error.value in instead:
                    return instead[error.value]
                if position == len(calls) or error.value not in self._unknown_version():
                    self._note(field, error)
                    return None
        return None

    def _unknown_version(self) -> tuple[int, ...]:
        """How drivers say that they do not know this version of a call."""
        nvml = self.nvml
        return (
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
            nvml.NVML_ERROR_INVALID_ARGUMENT,
            nvml.NVML_ERROR_NOT_SUPPORTED,
        )

    def _note(self, field: str, error: Exception) -> None:
        name = self._prefix + field
        problem = Problem(name, error_name(error), f"{name} could not be read: {error}")
        if problem not in self.problems:
            self.problems.append(problem)


def error_name(error: Exception) -> str:
    """NVML's name of an NVMLError: NVMLError_GpuIsLost gives GPU_IS_LOST, a number unknown to pynvml ERROR_<n>."""
    _, _, words = type(error).__name__.partition("_")
    if not words:
        return f"ERROR_{getattr(error, 'value', 'UNKNOWN')}"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", words).upper()


# What the loader says of a library that is there: the rest is "No such file", and "too short" of an empty one.
_UNLOADABLE = re.compile(
    r"undefined symbol|symbol \S{1,200} version|version .* not found|wrong ELF|invalid ELF|ermi(?:ssion|tted)"
)
_FAILURES = {
    "LIBRARY_NOT_FOUND": "NVIDIA's libnvidia-ml.so.1 was not found: no NVIDIA driver is installed{inside}",
    "DRIVER_NOT_LOADED": "the NVIDIA kernel module is not loaded{inside}",
    "LIB_RM_VERSION_MISMATCH": "the NVIDIA library and the loaded kernel module differ in version, "
    "as after a driver upgrade without a restart",
    "NO_PERMISSION": "this user has no permission to use the NVIDIA driver (check the permissions of /dev/nvidia*)",
}
_INSIDE = {
    "container": ", or this container was started without its GPUs (docker run --gpus all)",
    "wsl": ", or not on the Windows side (WSL takes its library from /usr/lib/wsl/lib)",
}


@frozen
class Answer:
    """What one NVML session told. `failure`: why there was none."""

    driver: str | None = None
    cuda: str | None = None
    failure: Problem | None = None
    gpus: tuple[Gpu, ...] = ()
    links: tuple[Link, ...] = ()
    problems: tuple[Problem, ...] = ()


def read_gpus(proc: Path, surroundings: str) -> Answer:
    """One look through NVML: one nvmlInit, one nvmlShutdown. `proc`: the proc file system that belongs to the machine.

    Never raises for what the driver does; blocks as long as the driver takes (milliseconds; seconds to wake a GPU).
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Answer(failure=_failure(error, module_version(proc), surroundings, _other_maker(proc)))
    system = Fields(pynvml)
    try:
        seen = _read(system, proc)
    finally:
        system.read("shutdown", pynvml.nvmlShutdown)
    return replace(seen, problems=(*system.problems, *seen.problems))


def _read(system: Fields, proc: Path) -> Answer:
    nvml = system.nvml
    driver = system.read("driver", nvml.nvmlSystemGetDriverVersion)
    cuda = system.read("cuda", nvml.nvmlSystemGetCudaDriverVersion_v2)
    count = system.read("count", nvml.nvmlDeviceGetCount) or 0
    cards = [read_card(nvml, index, proc, alone=count == 1) for index in range(count)]
    links, problems = read_links(nvml, cards)
    return Answer(
        driver=driver,
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        gpus=tuple(card.gpu for card in cards),
        links=links,
        problems=problems,
    )


def module_version(proc: Path) -> str | None:
    """The version of the NVIDIA kernel module that is loaded, None without one."""
    found = re.search(r"Kernel Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)", text_of(proc / "driver/nvidia/version"))
    return found[1] if found else None


def _failure(error: Exception, module: str | None, surroundings: str, maker: str | None = None) -> Problem:
    """Why NVML did not start, for people, with what the kernel says beside it."""
    code, said = error_name(error), str(error.__context__ or "")
    reason = _FAILURES.get(code, f"NVML did not start: {error}").format(inside=_INSIDE.get(surroundings, ""))
    if code == "LIBRARY_NOT_FOUND" and _UNLOADABLE.search(said):  # pynvml says "not found" for every failure to load it
        reason = f"NVIDIA's library does not load: {said}"
    beside = f"the loaded NVIDIA kernel module is {module}" if module else "there is no /proc/driver/nvidia/version"
    if maker and not module:
        beside = f"the {maker} GPU of this machine is not supported: mscli uses NVIDIA GPUs, or the CPU"
    return Problem("nvml", code, f"{reason}; {beside}")


def _other_maker(proc: Path) -> str | None:
    """Who made a GPU of this machine that is not NVIDIA's, by the kernel module that drives it."""
    loaded = {line.split(" ")[0] for line in text_of(proc / "modules").splitlines()}
    return "AMD" if "amdgpu" in loaded else "Intel" if loaded & {"i915", "xe"} else None


@frozen
class Lane:
    """An active NVLink lane: the PCI address at its far end, and whether that is an NVSwitch. None: unknown."""

    remote: str | None
    switch: bool | None


@frozen
class Card:
    """A GPU with its NVML handle (None: the driver would not open it)."""

    gpu: Gpu
    handle: Any
    lanes: tuple[Lane, ...]


@frozen
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
        clocks=_clocks(Fields(nvml, handle)),
    )
    return Card(gpu, handle, lanes)


def _clocks(device: Fields) -> Clocks | None:
    """None where the driver does not tell them all, which is no problem: they serve for cards that no list has."""
    nvml = device.nvml
    bits = device.read("bus_bits", nvml.nvmlDeviceGetMemoryBusWidth)
    memory = device.read("memory_mhz", lambda gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_MEM))
    cores = device.read("cores", nvml.nvmlDeviceGetNumGpuCores)
    sm = device.read("sm_mhz", lambda gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM))
    return Clocks(bits, memory, cores, sm) if bits and memory and cores and sm else None


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


_PATHS = {0: "internal", 10: "single-switch", 20: "multiple-switches", 30: "host-bridge", 40: "node", 50: "system"}
# The bindings' own constant for this index is a tuple by mistake (NVML_P2P_CAPS_INDEX_READ = 0,).
_P2P_READ = 0


def read_links(nvml: ModuleType, cards: Sequence[Card]) -> tuple[tuple[Link, ...], tuple[Problem, ...]]:
    """A Link for every pair of GPUs that the driver opened, and what could not be read of them."""
    links, problems = [], []
    opened = [card for card in cards if card.handle is not None]
    addresses = {card.gpu.pci_bus_id for card in opened if card.gpu.pci_bus_id}
    for one, other in combinations(opened, 2):
        first, second = one.gpu.index, other.gpu.index
        pair = Fields(nvml, one.handle, other.handle, prefix=f"links[{first},{second}].")
        ancestor = pair.read("path", nvml.nvmlDeviceGetTopologyCommonAncestor)
        status = pair.read("p2p", lambda a, b: nvml.nvmlDeviceGetP2PStatus(a, b, _P2P_READ))
        p2p = None if status in (None, nvml.NVML_P2P_STATUS_UNKNOWN) else status == nvml.NVML_P2P_STATUS_OK
        path = "unknown" if ancestor is None else _PATHS.get(ancestor, "unknown")
        links.append(Link(first, second, lanes_between(one, other, addresses), path, p2p))
        problems += pair.problems
    return tuple(links), tuple(problems)


def lanes_between(one: Card, other: Card, addresses: set[str]) -> int:
    """Active NVLink lanes from `one` that end at `other`, and those by which both reach switches (the fewer).

    `addresses`: the PCI addresses of all GPUs. A far end of unknown kind that is none of them is taken for a switch:
    drivers that cannot tell the kind are older than bridges to GPUs outside the machine.
    """
    direct = sum(lane.remote == other.gpu.pci_bus_id for lane in one.lanes if lane.remote)
    return direct + min(_to_switch(one.lanes, addresses), _to_switch(other.lanes, addresses))


def _to_switch(lanes: Sequence[Lane], addresses: set[str]) -> int:
    return sum(lane.remote not in addresses if lane.switch is None else lane.switch for lane in lanes)
