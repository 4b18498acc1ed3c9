"""Checks of the NVIDIA driver: that NVML answers, that its parts are of one release, that it is new enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mscli.doctor.checks.check import Check, CheckContext, Finding, counted, fail, nvml, ok, skipped, warn
from mscli.doctor.checks.driver.no_nvml import JOIN_GROUP, nvidia_devices, reason
from mscli.inventory.nvml import module_version

# What a driver's CUDA must be for the engines as they are published now: below the first, nothing runs; below the
# others, some of it. Sources: Ollama 0.30's release notes (driver 550, CUDA 12.4); vLLM's and PyTorch's wheels of 2025
# (CUDA 12.8: their PTX does not compile on driver 550, vllm-project/vllm#31700); NVIDIA's CUDA 13 release notes
# (driver 580), for wheels and images built with it.
_LEAST = (12, 0)
_WANTED = (((12, 4), "Ollama from 0.30"), ((12, 8), "PyTorch and vLLM wheels that compile kernels at startup"))
_LATER = (13, 0)


def _nvml(ctx: CheckContext) -> Iterator[Finding]:
    seen = ctx.inventory
    if seen.nvml is not None:
        yield reason(ctx, seen.nvml)
    elif seen.gpus:
        gpus = counted(len(seen.gpus), "GPU")
        yield ok(f"driver {seen.driver or 'unknown'}, CUDA {seen.cuda or 'unknown'}, {gpus}")
    else:
        yield _without_gpus(ctx)


def _without_gpus(ctx: CheckContext) -> Finding:
    listed = [str(device) for device in nvidia_devices(ctx.root) if device.kind == "gpu"]
    if listed and ctx.inventory.host.surroundings != "container":
        return fail("xid", "NVML lists none of the GPUs on the PCI bus", None, *listed)
    return warn("docker_gpu", "NVML lists no GPU", "In a container: start it with docker run --gpus all.")


def _release(ctx: CheckContext) -> Iterator[Finding]:
    library, module = ctx.inventory.driver, module_version(ctx.root / "proc")
    if module is None or library is None:
        yield skipped("kernel module version unknown (WSL, or a container)")
    elif module != library:
        seen = f"driver library {library}, loaded kernel module {module}"
        yield fail("nvml_mismatch", seen, None, command="sudo reboot")
    else:
        yield ok(f"library and kernel module: {module}")


def _cuda(ctx: CheckContext) -> Iterator[Finding]:
    found = _version(ctx.inventory.cuda)
    if found is None:
        yield skipped("supported CUDA version unknown")
        return
    seen = f"driver {ctx.inventory.driver} supports CUDA {ctx.inventory.cuda}"
    missed = [f"{what} (CUDA {_dotted(least)})" for least, what in _WANTED if found < least]
    if found < _LEAST:
        yield fail("driver_too_old", f"{seen} (current engines need {_dotted(_LEAST)})", None)
    elif missed:
        remedy = "Update the driver, or use llama.cpp or an engine build for this CUDA version."
        yield warn("driver_too_old", f"{seen} (too old for {' and '.join(missed)})", remedy)
    elif found < _LATER:
        yield ok(f"{seen} (CUDA 13 builds need driver 580)")
    else:
        yield ok(seen)


def _nodes(ctx: CheckContext) -> Iterator[Finding]:
    closed = closed_nodes(ctx.root)
    if closed:
        shown = ", ".join(f"/dev/{node.name}" for node in closed)
        remedy = JOIN_GROUP
        yield fail("permissions", f"no permission to open {shown}", remedy, *map(_mode, closed))
    elif there := device_nodes(ctx.root):
        yield ok(f"device files: {', '.join(f'/dev/{node.name}' for node in there)}")
    else:
        yield skipped("no /dev/nvidia* (WSL has none)")


def device_nodes(root: Path) -> list[Path]:
    """The device files that every CUDA process opens, as far as they are there; nvidia-uvm is often made later."""
    folder = root / "dev"
    nodes = [*sorted(folder.glob("nvidia[0-9]*")), folder / "nvidiactl", folder / "nvidia-uvm"]
    return [node for node in nodes if node.exists()]


def closed_nodes(root: Path) -> list[Path]:
    """Those that this user may not read and write."""
    return [node for node in device_nodes(root) if not os.access(node, os.R_OK | os.W_OK)]


def _mode(node: Path) -> str:
    stat = node.stat()
    return f"/dev/{node.name}: mode {stat.st_mode & 0o777:o}, user {stat.st_uid}, group {stat.st_gid}"


def _fabric(ctx: CheckContext) -> Iterator[Finding]:
    switches = [str(device) for device in nvidia_devices(ctx.root) if device.kind == "nvswitch"]
    states = [one for one in ctx.health if one.fabric]
    waiting = [one for one in states if one.fabric != "completed" or one.fabric_status]
    if not switches and not states:
        yield ok("no NVSwitch")
        return
    service = ctx.run("systemctl", "is-active", "nvidia-fabricmanager")
    state = f"nvidia-fabricmanager is {service.last_words or 'unknown'}" if service else "systemctl not found"
    if waiting:
        which = ", ".join(f"GPU {one.index}: {one.fabric}, status {one.fabric_status}" for one in waiting)
        remedy, command = None, "sudo systemctl enable --now nvidia-fabricmanager"
        yield fail("fabric_manager", f"NVSwitch fabric not up ({which})", remedy, state, command=command)
    elif other := _other_release(ctx):
        yield fail("fabric_manager", other, None, state)
    elif states:
        yield ok(f"NVSwitch fabric up on {counted(len(states), 'GPU')}", state)
    elif service and service.last_words in ("inactive", "failed"):
        yield fail("fabric_manager", f"NVSwitch present, and {state}", None, *switches)
    else:
        yield skipped(f"NVSwitch present, fabric state unknown; {state}")


def _other_release(ctx: CheckContext) -> str | None:
    """The fabric manager's release where it is not the driver's, as it must be to the last digit."""
    asked = ctx.run("nv-fabricmanager", "--version")
    words = asked.last_words.split() if asked and asked.status == 0 else []
    driver = ctx.inventory.driver
    if not words or driver is None or words[-1] == driver or not words[-1][:1].isdigit():
        return None
    return f"fabric manager {words[-1]}, driver {driver} (must be the same version)"


def _version(text: str | None) -> tuple[int, int] | None:
    major, _, minor = (text or "").partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


CHECKS = (
    Check("driver.nvml", _nvml),
    Check("driver.release", _release, needs=nvml),
    Check("driver.cuda", _cuda, needs=nvml),
    Check("driver.nodes", _nodes, needs=nvml),
    Check("driver.fabric", _fabric, needs=nvml),
)
