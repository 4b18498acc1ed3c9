"""Checks of CUDA: which libcuda is loaded, whether it starts, and whether it shows what NVML shows.

CUDA is started once, in a child process (probe.py), as it may hang or crash.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mscli.diagnosis.causes import CAUSES
from mscli.doctor.checks.check import Check, CheckContext, Finding, counted, fail, gpus, ok, skipped, together, warn
from mscli.doctor.checks.driver.no_nvml import PURGE_DRIVER, READ_LOG, release_of
from mscli.doctor.checks.host import kernel_log
from mscli.doctor.checks.loader import MISSING, explained, not_loaded
from mscli.frozen import frozen
from mscli.inventory.nvml import module_version
from mscli.planning.plan import gib

_WSL = "/usr/lib/wsl/"


def _library(ctx: CheckContext) -> Iterator[Finding]:
    start, without = cuda_start(ctx), _without(ctx)
    module, release = module_version(ctx.root / "proc"), release_of(start.path)
    if start.path is None:
        if without:
            yield skipped(f"no libcuda.so.1; {without}")
        else:
            yield _not_loaded(ctx, start.missing or "")
    elif ctx.inventory.host.surroundings == "wsl" and not start.path.startswith(_WSL):
        seen = f"{start.path} loaded instead of WSL's libcuda in {_WSL}lib"
        remedy = "Remove the Linux driver inside WSL:"
        yield skipped(seen) if without else fail("wsl", seen, remedy, command=PURGE_DRIVER)
    elif _foreign(start.path):
        yield _compat(start)
    elif module and release and module != release and not without:
        seen = f"libcuda {release} ({start.path}), kernel module {module}"
        yield fail("driver_vs_compat", seen, None)
    else:
        yield ok(f"libcuda: {start.path}")


def _not_loaded(ctx: CheckContext, words: str) -> Finding:
    fault = explained(ctx, "libcuda.so.1", words)
    if fault.kind != MISSING:
        return not_loaded("libcuda.so.1", fault)
    seen = "NVML lists GPUs, but there is no libcuda.so.1"
    return fail("nvml_not_found", seen, None, words, command="ldconfig -p | grep libcuda")


def _foreign(path: str) -> bool:
    """cuda-compat (/usr/local/cuda-12.8/compat) or a stub to link against (/usr/local/cuda/lib64/stubs)."""
    return bool({"compat", "stubs"} & set(Path(path).parts))


def _compat(start: Start) -> Finding:
    seen = f"libcuda from {start.path}, not from the driver"
    if start.code or not start.count:
        return skipped(f"{seen} (see cuda.start)")
    return ok(f"{seen} (works here)")


def _starts(ctx: CheckContext) -> Iterator[Finding]:
    start, without = cuda_start(ctx), _without(ctx)
    if start.path is None:
        yield skipped("no libcuda (see cuda.library)")
    elif start.hung or start.status:
        yield _unfinished(start, without)
    elif start.code and without:
        yield skipped(f"CUDA does not start ({start.call}: {start.code} {start.name}); {without}")
    elif start.code:
        yield _error(ctx, start.call, start.code, start.name, start.path)
    else:
        yield from _on_devices(ctx, start)


def _unfinished(start: Start, without: str | None) -> Finding:
    where = start.hung or "its end"
    if start.status is None:
        seen = f"CUDA hangs in {where}"
    else:
        how = f"signal {-start.status}" if start.status < 0 else f"exit status {start.status}"
        seen = f"CUDA crashed in {where} ({how})"
    if without:
        return skipped(f"{seen}; {without}")
    return fail("xid", seen, "Restart the machine; look at the kernel log:", f"library: {start.path}", command=READ_LOG)


def _on_devices(ctx: CheckContext, start: Start) -> Iterator[Finding]:
    bad = [device for device in start.devices if device["code"]]
    for device in bad:
        where = f"CUDA device {device['ordinal']} ({device['name']}), {device['call']}"
        yield _error(ctx, where, device["code"], device["error"], start.path or "")
    good, full = len(start.devices) - len(bad), len(full_devices(ctx))
    version = f"CUDA {(start.version or 0) // 1000}.{(start.version or 0) % 1000 // 10}"
    untried = f"; {full} not tried (memory full)" if full else ""
    if good:
        beside = " (but NVML does not answer: engines that ask it find no GPU)" if ctx.inventory.nvml else ""
        yield ok(f"{version} works on {good} of {counted(start.count, 'device')}{untried}{beside}")
    elif not bad:
        yield skipped(f"{version} starts, no device tried{untried}")


def _devices(ctx: CheckContext) -> Iterator[Finding]:
    start, expected = cuda_start(ctx), ctx.inventory.devices
    if not start.count or _without(ctx):
        yield skipped("no CUDA device to compare (see cuda.start and driver.nvml)")
        return
    parts = any(device.mig for device in expected)
    wanted = 1 if parts else len(expected)
    if start.count < wanted:
        seen = f"CUDA lists {start.count} of {counted(wanted, 'device')} that NVML lists"
        yield warn("visible_devices", seen, None, *(device.name for device in expected))
        return
    if short := _smaller(start, ctx):
        remedy = "Plans use NVML's figure; look for an MPS limit (CUDA_MPS_PINNED_DEVICE_MEM_LIMIT) or a vGPU limit."
        yield warn(None, f"CUDA has less memory than NVML: {short}", remedy)
        return
    sizes = together(
        ((device["ordinal"], gib(device["total"])) for device in start.devices if device["total"]), "device"
    )
    shown = f"CUDA and NVML list {counted(start.count, 'device')}"
    yield ok(f"{shown} ({sizes})" if sizes else shown)


def _smaller(start: Start, ctx: CheckContext) -> str:
    """The devices of which CUDA shows less than nine tenths of NVML's figure; the driver's reserve is a few per cent.
    A GPU that shares the host's memory has no figure in NVML.
    """
    expected, sharing = ctx.inventory.devices, {gpu.index for gpu in ctx.inventory.gpus if gpu.unified_memory}
    short = []
    for device in start.devices:
        told = expected[device["ordinal"]] if device["ordinal"] < len(expected) else None
        if told is None or told.gpu in sharing or not told.total_bytes or not device["total"]:
            continue
        if device["total"] < 0.9 * told.total_bytes:
            short.append(f"device {device['ordinal']}: {gib(device['total'])} of {gib(told.total_bytes)}")
    return "; ".join(short)


def _without(ctx: CheckContext) -> str | None:
    """Why CUDA cannot be expected to start, where another check has said so; None where it should."""
    seen = ctx.inventory
    if why := gpus(ctx):
        return why
    if not seen.devices:
        return "no GPU usable and visible (see gpu.readable and gpu.visible)"
    if ctx.lost_gpus:
        return "a GPU is lost (see gpu.readable)"
    return None


def _toolkit(ctx: CheckContext) -> Iterator[Finding]:
    """CUDA_HOME matters where kernels are compiled at the start; a leading colon broke one FlashInfer."""
    named = [(name, ctx.env[name]) for name in ("CUDA_HOME", "CUDA_PATH") if ctx.env.get(name)]
    wrong = [(name, value, why) for name, value in named if (why := _no_toolkit(value))]
    for name, value, why in wrong:
        remedy = f"Set {name} to the toolkit's folder (/usr/local/cuda), or unset it."
        yield warn("nvcc_jit", f"{name}={value!r} {why} (compiling kernels at startup fails)", remedy)
    if wrong:
        return
    nvcc = next((f"{value}/bin/nvcc" for _, value in named), None) or ctx.which("nvcc")
    yield ok(f"nvcc: {nvcc}" if nvcc else "no nvcc and no CUDA_HOME (only needed to compile kernels)")


def _no_toolkit(value: str) -> str | None:
    if os.pathsep in value:
        return "is a list, not one folder"
    if not Path(value).is_dir():
        return "does not exist"
    return None if os.access(Path(value) / "bin" / "nvcc", os.X_OK) else "has no bin/nvcc"


def _paths(ctx: CheckContext) -> Iterator[Finding]:
    value = ctx.env.get("LD_LIBRARY_PATH")
    if not value:
        yield ok("LD_LIBRARY_PATH not set")
        return
    folders = value.split(os.pathsep)
    odd = [folder for folder in folders if folder and _foreign(folder) and (Path(folder) / "libcuda.so.1").exists()]
    if odd and _foreign(cuda_start(ctx).path or ""):
        yield skipped(f"LD_LIBRARY_PATH loads {odd[0]} before the driver (see cuda.library and cuda.start)")
    elif odd:
        remedy = "Remove it from LD_LIBRARY_PATH: engines may load it."
        yield warn("driver_vs_compat", f"LD_LIBRARY_PATH has a libcuda that is not the driver's: {odd[0]}", remedy)
    elif "" in folders:
        remedy = "Remove the leading, trailing or doubled colon."
        yield warn(None, "LD_LIBRARY_PATH has an empty entry (loads libraries of the current folder first)", remedy)
    else:
        yield ok(f"LD_LIBRARY_PATH={value}")


# A healthy GPU needs some tenths of a second; without persistence mode, the driver wakes each one, for a second or
# more. Only a machine that is not well makes anybody wait as long as this.
WAITED_S = 8.0
# A context takes 300 to 600 MiB for as long as it lives.
_ROOM = 2**30


@frozen
class Start:
    """`path`: the libcuda that was loaded; `missing`: why none was. `call`, `code`, `name`: the first call that failed
    before any device (code 0: none). `version`: as CUDA counts, 12080 for 12.8. `devices`: what each device said, as
    probe.py tells it. `hung`: the call that had not come back. `status`: how the process ended, None: it was killed.
    """

    path: str | None
    missing: str | None
    call: str
    code: int
    name: str
    seconds: float
    version: int | None
    count: int
    devices: tuple[dict[str, Any], ...]
    hung: str | None
    status: int | None


def cuda_start(ctx: CheckContext) -> Start:
    """The one start of this visit. Blocks at most WAITED_S."""
    return ctx.once("cuda_start", lambda: start(ctx, WAITED_S))


def start(ctx: CheckContext, timeout_s: float) -> Start:
    """Start CUDA and see how it ends. Blocks at most `timeout_s`."""
    # -I and -S: neither the user's Python settings nor installed packages take part, and it starts faster.
    program = Path(__file__).with_name("probe.py")
    order = {"CUDA_DEVICE_ORDER": ctx.env.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")}  # the order of the inventory
    argv = (sys.executable, "-I", "-S", str(program), *map(str, full_devices(ctx)))
    ran = ctx.run(*argv, timeout_s=timeout_s, env=order)
    steps = list(_steps(ran.out)) if ran else []
    by_name = {step["step"]: step for step in steps}
    load, found = by_name.get("load", {}), by_name.get("found", {})
    failed = next((step for step in steps if step.get("code") and step["step"] != "device"), {})
    devices = tuple(step for step in steps if step["step"] == "device")
    begun = [step["call"] for step in steps if step["step"] == "begin" and step["call"] not in by_name]
    unfinished = begun[0] if begun else "first use of a device" if found and "end" not in by_name else None
    return Start(
        path=load.get("path"),
        missing=load.get("error"),
        call=failed.get("step", ""),
        code=failed.get("code", 0),
        name=failed.get("name", ""),
        seconds=sum(step.get("seconds", 0.0) for step in steps),
        version=found.get("version"),
        count=found.get("count", 0),
        devices=devices,
        hung=unfinished,
        status=ran.status if ran else None,
    )


def full_devices(ctx: CheckContext) -> list[int]:
    """The CUDA devices that are too full to be tried without harm to whoever fills them."""
    devices = ctx.inventory.devices
    return [at for at, device in enumerate(devices) if device.free_bytes is not None and device.free_bytes < _ROOM]


def _steps(text: str) -> Iterator[dict[str, Any]]:
    """The lines that are whole: the last one of a process that was killed may not be."""
    for line in text.splitlines():
        try:
            step = json.loads(line)
        except ValueError:
            continue
        if isinstance(step, dict) and "step" in step:
            yield step


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


def _error(ctx: CheckContext, where: str, code: int, name: str, path: str) -> Finding:
    """The finding for error `code` (its `name` in CUDA) of the call `where`. `path`: the libcuda that gave it."""
    seen = f"{where}: CUDA error {code}{f' ({name})' if name else ''}"
    library = f"libcuda: {path}"
    if code == UNKNOWN:
        return _unknown(ctx, seen, library)
    if code == NO_DEVICE:
        return _no_device(ctx, seen, library)
    if code == OPERATING_SYSTEM:
        remedy = "Give this user access to /dev/nvidia-uvm, or create it: sudo nvidia-modprobe -u -c 0"
        return fail("permissions", seen, remedy, library, *_uvm(ctx), command="ls -l /dev/nvidia-uvm")
    if code == MISMATCH and _same_as_driver(ctx, path):
        return fail("nvml_mismatch", seen, None, library)
    cause = "xid" if code in _LOST else "driver_vs_compat" if code == MISMATCH else _CODES.get(code)
    if cause is None:
        return fail(None, seen, "Look at the kernel log:", library, command=READ_LOG)
    return fail(cause, f"{seen}: {CAUSES[cause][0]}", CAUSES[cause][1], library)


def _unknown(ctx: CheckContext, seen: str, library: str) -> Finding:
    """999 says nothing by itself; after a suspend it is nvidia_uvm that has lost its GPU."""
    slept = [line.text for line in kernel_log(ctx).matching(_SLEPT)]
    after = "the machine was suspended" if slept else "usual after a suspend; none in the kernel log"
    return fail("suspend", f"{seen}, {after}", None, library, *slept[-2:], *_uvm(ctx), command=_RELOAD)


def _no_device(ctx: CheckContext, seen: str, library: str) -> Finding:
    """No device although NVML shows some: hidden from CUDA, cut into MIG instances, or without nvidia_uvm."""
    if any(gpu.mig.mode == "on" for gpu in ctx.inventory.gpus):
        return fail("mig", f"{seen}: {CAUSES['mig'][0]}", None, library)
    if ctx.inventory.visible_devices is not None:
        value = ctx.inventory.visible_devices
        return fail("visible_devices", f"{seen} with CUDA_VISIBLE_DEVICES={value}", None, library)
    if ctx.inventory.host.surroundings == "container":
        remedy = "Start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility."
        return fail("docker_gpu", seen, remedy, library, *_uvm(ctx))
    return fail("no_driver", seen, "Load the module:", library, *_uvm(ctx), command="sudo modprobe nvidia_uvm")


def _uvm(ctx: CheckContext) -> tuple[str, ...]:
    """Whether nvidia_uvm is there, which every CUDA context needs."""
    loaded = (ctx.root / "sys/module/nvidia_uvm").exists()
    node = (ctx.root / "dev/nvidia-uvm").exists()
    return (
        ()
        if loaded and node
        else (f"nvidia_uvm {'' if loaded else 'not '}loaded, {'' if node else 'no '}/dev/nvidia-uvm",)
    )


def _same_as_driver(ctx: CheckContext, path: str) -> bool:
    """The libcuda is the driver package's own, of another release than the module: an upgrade, not cuda-compat."""
    if {"compat", "stubs"} & set(Path(path).parts):
        return False
    module, release = module_version(ctx.root / "proc"), release_of(path)
    return bool(module and release and module != release and release == ctx.inventory.driver)


CHECKS = (
    Check("cuda.library", _library, WAITED_S + 1),
    Check("cuda.start", _starts, WAITED_S + 1),
    Check("cuda.devices", _devices, WAITED_S + 1),
    Check("cuda.toolkit", _toolkit),
    Check("cuda.paths", _paths, WAITED_S + 1),
)
