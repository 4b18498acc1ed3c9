"""What an error of CUDA's driver API means on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from mscli.diagnosis.causes import CAUSES
from mscli.doctor.checks.check import FAIL, Seen, fail
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.driver.no_nvml import release_of
from mscli.doctor.checks.host.kernel_log import kernel_log
from mscli.inventory.nvml import module_version

_SLEPT = re.compile(r"PM: (?:suspend|resume|hibernation)")
_CODES = {
    2: "gpu_busy",
    34: "driver_vs_compat",
    35: "driver_too_old",
    36: "driver_too_old",
    46: "gpu_busy",
    101: "visible_devices",
    214: "ecc",
    802: "fabric_manager",
    804: "driver_vs_compat",
}
_LOST = (702, 716, 719)
_RELOAD = "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm"
NO_DEVICE, OPERATING_SYSTEM, MISMATCH, UNKNOWN = 100, 304, 803, 999


def judged(ctx: CheckContext, where: str, code: int, name: str, path: str) -> Seen:
    """The finding for error `code` (its `name` in CUDA) of the call `where`. `path`: the libcuda that gave it."""
    seen = f"{where}: CUDA error {code}{f' ({name})' if name else ''}"
    library = f"libcuda: {path}"
    if code == UNKNOWN:
        return _unknown(ctx, seen, library)
    if code == NO_DEVICE:
        return _no_device(ctx, seen, library)
    if code == OPERATING_SYSTEM:
        remedy = "Let this user open /dev/nvidia-uvm, or make it with `sudo nvidia-modprobe -u -c 0`."
        return fail("permissions", seen, remedy, library, *_uvm(ctx), command="ls -l /dev/nvidia-uvm")
    if code == MISMATCH and _same_as_driver(ctx, path):
        return fail("nvml_mismatch", seen, CAUSES["nvml_mismatch"][1], library)
    cause = "xid" if code in _LOST else "driver_vs_compat" if code == MISMATCH else _CODES.get(code)
    if cause is None:
        return Seen(FAIL, seen, None, (library,), "`sudo dmesg | grep -e NVRM -e nvidia` may tell why.")
    return fail(cause, f"{seen}: {CAUSES[cause][0]}", CAUSES[cause][1], library)


def _unknown(ctx: CheckContext, seen: str, library: str) -> Seen:
    """999 says nothing by itself; after a suspend it is nvidia_uvm that has lost its GPU."""
    slept = [line.text for line in kernel_log(ctx).matching(_SLEPT)]
    after = "after the machine slept" if slept else "as after a suspend; the kernel's log shows none"
    return fail("suspend", f"{seen}, {after}", CAUSES["suspend"][1], library, *slept[-2:], *_uvm(ctx), command=_RELOAD)


def _no_device(ctx: CheckContext, seen: str, library: str) -> Seen:
    """No device although NVML shows some: hidden from CUDA, cut into MIG instances, or without nvidia_uvm."""
    if any(gpu.mig.mode == "on" for gpu in ctx.inventory.gpus):
        return fail("mig", f"{seen}: {CAUSES['mig'][0]}", CAUSES["mig"][1], library)
    if ctx.inventory.visible_devices is not None:
        value = ctx.inventory.visible_devices
        return fail(
            "visible_devices", f"{seen} with CUDA_VISIBLE_DEVICES={value}", CAUSES["visible_devices"][1], library
        )
    if ctx.inventory.host.surroundings == "container":
        remedy = "Start the container with all of the driver's parts: NVIDIA_DRIVER_CAPABILITIES=compute,utility."
        return fail("docker_gpu", seen, remedy, library, *_uvm(ctx))
    remedy = "Load the rest of the driver: `sudo modprobe nvidia_uvm`."
    return fail("no_driver", seen, remedy, library, *_uvm(ctx), command="sudo modprobe nvidia_uvm")


def _uvm(ctx: CheckContext) -> tuple[str, ...]:
    """Whether nvidia_uvm is there, which every CUDA context needs."""
    loaded = (ctx.root / "sys/module/nvidia_uvm").exists()
    node = (ctx.root / "dev/nvidia-uvm").exists()
    return (
        ()
        if loaded and node
        else (f"nvidia_uvm {'is' if loaded else 'is not'} loaded, /dev/nvidia-uvm {'is' if node else 'is not'} there",)
    )


def _same_as_driver(ctx: CheckContext, path: str) -> bool:
    """The libcuda is the driver package's own, of another release than the module: an upgrade, not cuda-compat."""
    if {"compat", "stubs"} & set(Path(path).parts):
        return False
    module, release = module_version(ctx.root / "proc"), release_of(path)
    return bool(module and release and module != release and release == ctx.inventory.driver)
