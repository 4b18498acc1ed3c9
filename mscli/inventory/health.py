"""How well each GPU is, as NVML counts it: memory errors, what holds its clocks down, its PCIe link, its NVSwitch
fabric. A look of its own, since only the doctor asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref

from mscli.frozen import frozen
from mscli.inventory.nvml import Fields

# Why clocks are held down against the GPU's overrides: NVML's bits of nvmlDeviceGetCurrentClocksThrottleReasons.
_SLOWED = {
    0x40: "it is too hot (hardware)",
    0x20: "it is too hot (driver)",
    0x80: "the power supply asks for it (power brake)",
    0x08: "the hardware asks for it: heat or power",
}
_FABRIC = {1: "not started", 2: "in progress", 3: "completed"}
_UNCORRECTED, _SINCE_LOAD, _EVER = 1, 0, 1


@frozen
class Health:
    """One GPU; None is what it does not tell (consumer cards have no ECC, older drivers no fabric).

    `uncorrected`: memory errors since the driver was loaded, `uncorrected_ever`: in all. `repair_pending`: rows are to
    be remapped, or pages retired, at the next reset. `repair_failed`: there was no spare row left. `slowed`: why the
    clocks are held down now. `pcie_width`: lanes in use. `fabric`: not started, in progress, completed;
    `fabric_status`: an error number of NVML, 0 for none.
    """

    index: int
    uncorrected: int | None
    uncorrected_ever: int | None
    repair_pending: bool | None
    repair_failed: bool | None
    slowed: tuple[str, ...]
    pcie_width: int | None
    pcie_max_width: int | None
    fabric: str | None
    fabric_status: int | None


def read_health(indices: Sequence[int]) -> tuple[Health, ...]:
    """The health of these GPUs, of those that the driver opens; none where NVML does not answer. Raises nothing."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    system = Fields(pynvml)
    try:
        found = [_of(system, index) for index in indices]
    finally:
        system.read("shutdown", pynvml.nvmlShutdown)
    return tuple(health for health in found if health)


def _of(system: Fields, index: int) -> Health | None:
    nvml = system.nvml
    handle = system.read("handle", lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    if handle is None:
        return None
    gpu = system.part(f"gpus[{index}].", handle)
    rows = gpu.read("remapped_rows", nvml.nvmlDeviceGetRemappedRows)
    pages = gpu.read("retired_pages", nvml.nvmlDeviceGetRetiredPagesPendingStatus)
    reasons = gpu.read("throttle", nvml.nvmlDeviceGetCurrentClocksThrottleReasons) or 0
    fabric, status = _fabric(gpu)
    return Health(
        index=index,
        uncorrected=_errors(gpu, _SINCE_LOAD),
        uncorrected_ever=_errors(gpu, _EVER),
        repair_pending=None if rows is None and pages is None else bool(pages or (rows and rows[2])),
        repair_failed=None if rows is None else bool(rows[3]),
        slowed=tuple(why for bit, why in _SLOWED.items() if reasons & bit),
        pcie_width=gpu.read("pcie_width", nvml.nvmlDeviceGetCurrPcieLinkWidth),
        pcie_max_width=gpu.read("pcie_max_width", nvml.nvmlDeviceGetMaxPcieLinkWidth),
        fabric=fabric,
        fabric_status=status,
    )


def _errors(gpu: Fields, counter: int) -> int | None:
    return gpu.read("ecc", lambda handle: gpu.nvml.nvmlDeviceGetTotalEccErrors(handle, _UNCORRECTED, counter))


def _fabric(gpu: Fields) -> tuple[str | None, int | None]:
    """State and status of the NVSwitch fabric; None, None on a GPU that is in none."""
    info = gpu.nvml.c_nvmlGpuFabricInfo_t()
    if gpu.read("fabric", lambda handle: gpu.nvml.nvmlDeviceGetGpuFabricInfo(handle, byref(info))) is None:
        return None, None
    state = _FABRIC.get(info.state)
    return state, int(info.status) if state else None
