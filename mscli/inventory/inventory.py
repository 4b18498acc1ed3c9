"""What this machine has, as one frozen value: GPUs through NVML, and the host around them.

Sizes in bytes, temperature in degrees Celsius, power in watts. A field that could not be read is None,
and a Problem says which field, with which NVML error: one unreadable field never hides a GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from mscli.frozen import frozen


@frozen
class Problem:
    """Something that could not be read. `code`: NVML's name of the error (NOT_SUPPORTED, GPU_IS_LOST ...) or a short
    word of ours."""

    field: str
    code: str
    message: str


@frozen
class Holder:
    """A process that holds memory on a GPU. `used_bytes` is None where the driver does not tell (WSL, containers)."""

    pid: int
    user: str | None
    command: str | None
    container: str | None
    used_bytes: int | None


@frozen
class MigInstance:
    """One MIG device of a partitioned GPU; CUDA sees it as a device of its own.

    `gpu_instance` and `compute_instance` are the numbers in its older name, MIG-GPU-<uuid>/<gi>/<ci>.
    """

    index: int
    uuid: str
    name: str
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    memory_free_bytes: int | None
    holders: tuple[Holder, ...]
    gpu_instance: int | None = None
    compute_instance: int | None = None


@frozen
class Mig:
    """`mode`: off, on, unsupported, or unknown (it could not be read)."""

    mode: str
    instances: tuple[MigInstance, ...]


@frozen
class Clocks:
    """What a card's rates follow from: its memory bus in bits, its CUDA cores, and its highest clocks in MHz."""

    bus_bits: int
    memory_mhz: int
    cores: int
    sm_mhz: int


@frozen
class Gpu:
    """One physical GPU. `index` is NVML's (PCI order). `visible`: CUDA would show it under CUDA_VISIBLE_DEVICES.

    `name` is "unknown" and `uuid` is empty where the driver would not tell them.
    `memory_reserved_bytes` is what the driver keeps for itself (used + reserved + free = total); None where an older
    driver counts it as used. `clocks` is None where the driver does not tell them all. `unified_memory`: the GPU
    shares the host's RAM and reports no memory of its own (GB10, Jetson). A Problem's `field` is the field's name here;
    `handle` is the GPU as a whole, `memory` all four memory fields, `nvlinks` its NVLink lanes, and `mig[1].name` a
    field of an instance.
    """

    index: int
    uuid: str
    name: str
    pci_bus_id: str | None
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    memory_free_bytes: int | None
    compute_capability: str | None
    utilisation_percent: int | None
    temperature_c: int | None
    power_w: float | None
    power_limit_w: float | None
    unified_memory: bool
    mig: Mig
    holders: tuple[Holder, ...]
    problems: tuple[Problem, ...]
    visible: bool
    memory_reserved_bytes: int | None = None
    clocks: Clocks | None = None


@frozen
class Link:
    """How two GPUs reach each other. `nvlinks`: active NVLink lanes between them; `path`: internal, single-switch,
    multiple-switches, host-bridge, node, system or unknown; `p2p`: peer-to-peer reads work (None: unknown)."""

    first: int
    second: int
    nvlinks: int
    path: str
    p2p: bool | None


@frozen
class Host:
    """The machine around the GPUs. Cgroup limits are already applied to the RAM figures.

    `surroundings`: bare, container, wsl; `container`: docker, podman, kubernetes, lxc or unknown, None outside one.
    `cpu_cores`: logical CPUs that this process may use, a cgroup's quota counted.
    `disk_path` is where weights go, `disk_free_bytes` what is free there.
    """

    surroundings: str
    kernel: str
    ram_total_bytes: int
    ram_available_bytes: int
    cpu_model: str
    cpu_flags: tuple[str, ...]
    cpu_cores: int
    disk_path: Path
    disk_free_bytes: int | None
    container: str | None = None


@frozen
class Device:
    """One device as CUDA would enumerate it: a whole GPU, or one MIG instance. Planning works on these.

    With unified memory the sizes are the host's RAM. One CUDA process can use one MIG instance only, and no whole GPU
    beside it.
    """

    gpu: int
    uuid: str
    name: str
    total_bytes: int | None
    free_bytes: int | None
    compute_capability: str | None
    mig: bool
    holders: tuple[Holder, ...]


@frozen
class Inventory:
    """Everything seen in one look. `nvml`: None when NVML answered, else why it did not.

    `visible_devices`: the value of CUDA_VISIBLE_DEVICES as it was found (None: not set).
    """

    driver: str | None
    cuda: str | None
    nvml: Problem | None
    gpus: tuple[Gpu, ...]
    links: tuple[Link, ...]
    devices: tuple[Device, ...]
    host: Host
    visible_devices: str | None
    problems: tuple[Problem, ...]

    def holders(self, pids: Collection[int], uuids: Collection[str] | None = None) -> tuple[Holder, ...]:
        """What these processes hold, a Holder for each of them on each GPU and MIG instance; `uuids`: of these only."""
        parts: list[Gpu | MigInstance] = [*self.gpus, *(part for gpu in self.gpus for part in gpu.mig.instances)]
        wanted = (part for part in parts if uuids is None or part.uuid in uuids)
        return tuple(holder for part in wanted for holder in part.holders if holder.pid in pids)


def total_bytes(holders: Iterable[Holder]) -> int | None:
    """What they hold together; None where the driver does not tell it of one of them."""
    sizes = [holder.used_bytes for holder in holders]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
