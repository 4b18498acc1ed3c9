"""Checks of CUDA: which libcuda is loaded, whether it starts, and whether it shows what NVML shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mscli.diagnosis.causes import CAUSES
from mscli.doctor.checks.check import Check, Seen, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.cuda.errors import judged
from mscli.doctor.checks.cuda.start import WAITED_S, Start, cuda_start, spared
from mscli.doctor.checks.driver.no_nvml import release_of
from mscli.doctor.checks.gpu.health import lost
from mscli.doctor.checks.gpu.wording import together
from mscli.doctor.checks.program import which
from mscli.inventory.nvml import module_version
from mscli.planning.figures import gib

_WSL = "/usr/lib/wsl/"


def _library(ctx: CheckContext) -> Iterator[Seen]:
    start, without = cuda_start(ctx), _without(ctx)
    module, release = module_version(ctx.root / "proc"), release_of(start.path)
    if start.path is None:
        if without:
            yield skipped(f"there is no libcuda.so.1, and {without}")
        else:
            seen = "NVML shows GPUs, but libcuda.so.1 cannot be loaded"
            yield fail("nvml_not_found", seen, CAUSES["nvml_not_found"][1], start.missing or "the loader said nothing",
                       command="ldconfig -p | grep libcuda")  # fmt: skip
    elif ctx.inventory.host.surroundings == "wsl" and not start.path.startswith(_WSL):
        seen = f"{start.path} stands before WSL's own libcuda in {_WSL}lib"
        yield (skipped if without else _shadow)(seen)
    elif _foreign(start.path):
        yield _compat(start)
    elif module and release and module != release and not without:
        seen = f"libcuda is {release} ({start.path}), the kernel module {module}"
        yield fail("driver_vs_compat", seen, CAUSES["driver_vs_compat"][1])
    else:
        yield ok(f"libcuda: {start.path}")


def _shadow(seen: str) -> Seen:
    remedy = "Remove the Linux driver inside WSL (`sudo apt purge 'libnvidia-*' 'nvidia-*'`, then `sudo ldconfig`)."
    return fail("wsl", seen, remedy)


def _foreign(path: str) -> bool:
    """cuda-compat (/usr/local/cuda-12.8/compat) or a stub to link against (/usr/local/cuda/lib64/stubs)."""
    return bool({"compat", "stubs"} & set(Path(path).parts))


def _compat(start: Start) -> Seen:
    seen = f"libcuda is taken from {start.path}, not from the driver"
    if start.code or not start.count:
        return skipped(f"{seen} (see cuda.start)")
    return ok(f"{seen}; it works on this machine")


def _starts(ctx: CheckContext) -> Iterator[Seen]:
    start, without = cuda_start(ctx), _without(ctx)
    if start.path is None:
        yield skipped("there is no libcuda to start (see cuda.library)")
    elif start.hung or start.status:
        yield _unfinished(start, without)
    elif start.code and without:
        yield skipped(f"CUDA does not start ({start.call}: {start.code} {start.name}), and {without}")
    elif start.code:
        yield judged(ctx, start.call, start.code, start.name, start.path)
    else:
        yield from _on_devices(ctx, start)


def _unfinished(start: Start, without: str | None) -> Seen:
    where = start.hung or "its end"
    if start.status is None:
        seen = f"CUDA hangs: {where} gave no answer, and the process that waited for it was ended"
    else:
        seen = (
            f"CUDA's library crashed in {where} (signal {-start.status})"
            if start.status < 0
            else f"status {start.status}"
        )
    if without:
        return skipped(f"{seen}; {without}")
    return fail("xid", seen, "See `sudo dmesg | grep -e NVRM -e Xid`; restart the machine.", f"library: {start.path}")


def _on_devices(ctx: CheckContext, start: Start) -> Iterator[Seen]:
    bad = [device for device in start.devices if device["code"]]
    for device in bad:
        where = f"CUDA device {device['ordinal']} ({device['name']}), {device['call']}"
        yield judged(ctx, where, device["code"], device["error"], start.path or "")
    good, full = len(start.devices) - len(bad), len(spared(ctx))
    version = f"CUDA {(start.version or 0) // 1000}.{(start.version or 0) % 1000 // 10}"
    untried = f"; {full} too full to be tried without harm" if full else ""
    if good:
        beside = ", although NVML does not: engines that ask NVML will find no GPU" if ctx.inventory.nvml else ""
        yield ok(f"{version} starts and allocates on {good} of {start.count} devices{untried}{beside}")
    elif not bad:
        yield skipped(f"{version} starts, but no device was tried{untried}")


def _devices(ctx: CheckContext) -> Iterator[Seen]:
    start, expected = cuda_start(ctx), ctx.inventory.devices
    if not start.count or _without(ctx):
        yield skipped("CUDA shows no device to compare (see cuda.start and driver.nvml)")
        return
    parts = any(device.mig for device in expected)
    wanted = 1 if parts else len(expected)
    if start.count < wanted:
        seen = f"CUDA shows {start.count} devices where NVML leads one to expect {wanted}"
        yield warn("visible_devices", seen, CAUSES["visible_devices"][1], *(device.name for device in expected))
        return
    if short := _smaller(start, ctx):
        remedy = (
            "Plans count on NVML's figure: look for a limit of MPS (CUDA_MPS_PINNED_DEVICE_MEM_LIMIT) or of a vGPU."
        )
        yield warn(None, f"CUDA gives less memory than NVML shows: {short}", remedy)
        return
    sizes = together(
        ((device["ordinal"], gib(device["total"])) for device in start.devices if device["total"]), "device"
    )
    shown = f"CUDA shows {start.count} {'device' if start.count == 1 else 'devices'}, as NVML does"
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
    if seen.nvml is not None:
        return "NVML does not answer (see driver.nvml)"
    if not seen.gpus:
        return "NVML shows no GPU (see driver.nvml)"
    if not seen.devices:
        return "no GPU is usable or visible (see gpu.readable and gpu.visible)"
    if lost(ctx):
        return "a GPU is lost (see gpu.readable)"
    return None


def _toolkit(ctx: CheckContext) -> Iterator[Seen]:
    """CUDA_HOME matters where kernels are compiled at the start; a leading colon broke one FlashInfer."""
    named = [(name, ctx.env[name]) for name in ("CUDA_HOME", "CUDA_PATH") if ctx.env.get(name)]
    wrong = [(name, value, why) for name, value in named if (why := _no_toolkit(value))]
    for name, value, why in wrong:
        remedy = f"Set {name} to the one folder of the toolkit (/usr/local/cuda), or unset it."
        yield warn("nvcc_jit", f"{name}={value!r}: {why}; kernels compiled at the start will fail", remedy)
    if wrong:
        return
    nvcc = next((f"{value}/bin/nvcc" for _, value in named), None) or which(ctx, "nvcc")
    yield ok(f"nvcc: {nvcc}" if nvcc else "there is no nvcc and no CUDA_HOME: needed only where kernels are compiled")


def _no_toolkit(value: str) -> str | None:
    if os.pathsep in value:
        return "it is a list, not one folder"
    if not Path(value).is_dir():
        return "there is no such folder"
    return None if os.access(Path(value) / "bin" / "nvcc", os.X_OK) else "it has no bin/nvcc"


def _paths(ctx: CheckContext) -> Iterator[Seen]:
    value = ctx.env.get("LD_LIBRARY_PATH")
    if not value:
        yield ok("LD_LIBRARY_PATH is not set")
        return
    folders = value.split(os.pathsep)
    odd = [folder for folder in folders if folder and _foreign(folder) and (Path(folder) / "libcuda.so.1").exists()]
    if odd and _foreign(cuda_start(ctx).path or ""):
        yield skipped(f"LD_LIBRARY_PATH puts {odd[0]} before the driver (see cuda.library and cuda.start)")
    elif odd:
        remedy = "Take it out of LD_LIBRARY_PATH: engines started with another order may load it."
        yield warn("driver_vs_compat", f"LD_LIBRARY_PATH holds a libcuda that is not the driver's: {odd[0]}", remedy)
    elif "" in folders:
        remedy = "Remove the leading, trailing or doubled colon."
        yield warn(None, "LD_LIBRARY_PATH has an empty entry: libraries of the current folder are loaded first", remedy)
    else:
        yield ok(f"LD_LIBRARY_PATH={value}")


CHECKS = (
    Check("cuda.library", _library, WAITED_S + 1),
    Check("cuda.start", _starts, WAITED_S + 1),
    Check("cuda.devices", _devices, WAITED_S + 1),
    Check("cuda.toolkit", _toolkit),
    Check("cuda.paths", _paths, WAITED_S + 1),
)
