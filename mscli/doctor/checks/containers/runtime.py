"""Whether Docker knows how to give a container NVIDIA GPUs: its configuration, and what its daemon made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mscli.doctor.checks.check import Seen, fail, ok, skipped, warn
from mscli.doctor.checks.containers.view import Containers, client, grave, wanted
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.program import run, which
from mscli.engines.containers.client import DOCKER
from mscli.engines.containers.run import PLACES

NVIDIA = "nvidia"
TOOLKIT = (
    "Install the NVIDIA Container Toolkit "
    "(https://docs.nvidia.com/datacenter/cloud-native/container-toolkit), then register it."
)
REGISTER = "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
RESTART = "sudo systemctl restart docker"
# What `--gpus` itself looks for on the daemon's PATH, whatever is registered.
_HOOK = "nvidia-container-runtime-hook"


def runtime(ctx: CheckContext) -> Iterator[Seen]:
    """The nvidia runtime or CDI, as the daemon knows it and as its configuration says."""
    found = client(ctx)
    if found is None or found.kind != DOCKER:
        yield skipped("no Docker here")
        return
    path, told = _configuration(ctx, found)
    if isinstance(told, str):
        yield grave(
            ctx, "docker_gpu", f"{path} is no valid JSON, so that Docker does not start with it", "Correct it.", told,
            command=f"python3 -m json.tool {path}",
        )  # fmt: skip
        return
    if found.said:
        yield skipped("Docker does not answer")
    elif not ctx.inventory.gpus:
        yield from _without_gpu(ctx)
    else:
        yield _judged(ctx, found, "nvidia" in (told.get("runtimes") or {}), path)


def _without_gpu(ctx: CheckContext) -> Iterator[Seen]:
    if not wanted(ctx) or (ctx.chosen and ctx.chosen.profile.device == "cpu"):
        yield skipped("no NVIDIA GPU answers on this machine")
        return
    why = ctx.inventory.nvml.message if ctx.inventory.nvml else "NVML shows none"
    yield fail(
        "docker_gpu",
        "the profile runs in a container with GPUs, and no NVIDIA GPU answers on this machine",
        "A container sees no more than its host: `mscli doctor --only driver`.",
        why,
    )


def _judged(ctx: CheckContext, found: Containers, configured: bool, path: Path) -> Seen:
    by_cdi = [each for each in found.engine.cdi if each.startswith("nvidia.com/gpu")]
    if NVIDIA in found.engine.runtimes:
        program = found.engine.runtimes[NVIDIA] or "nvidia-container-runtime"
        if _there(ctx, program):
            return ok(f"Docker has the runtime nvidia ({program}){_version(ctx)}")
        seen = f"Docker has the runtime nvidia registered, and its program {program} is not there"
        return grave(ctx, "docker_gpu", seen, TOOLKIT, command=REGISTER)
    if by_cdi:
        return ok(f"Docker gives GPUs by CDI ({len(by_cdi)} devices){_version(ctx)}")
    if configured:
        seen = f"{path} registers the runtime nvidia, and the daemon that runs does not know it"
        return grave(ctx, "docker_gpu", seen, "Restart Docker (running containers stop).", command=RESTART)
    names = f"runtimes: {', '.join(found.engine.runtimes) or 'none'}"
    if _there(ctx, _HOOK):
        # What --gpus needs is there; only a container can tell whether the daemon found it when it started.
        seen = "Docker has no runtime nvidia registered; the toolkit's hook is there, which `--gpus` goes by"
        return warn("docker_gpu", seen, "Register it.", names, command=REGISTER)
    if _version(ctx):
        seen = "NVIDIA's toolkit is installed, and Docker was not told of it: no runtime nvidia, no CDI"
        return grave(ctx, "docker_gpu", seen, "Register it.", names, command=REGISTER)
    seen = "Docker cannot give a container a GPU: the NVIDIA Container Toolkit is not installed"
    return grave(ctx, "docker_gpu", seen, TOOLKIT, names, command=REGISTER)


def _configuration(ctx: CheckContext, found: Containers) -> tuple[Path, Mapping[str, Any] | str]:
    """The daemon's configuration, or what is wrong with it; nothing in it where there is none."""
    home = Path(ctx.env.get("XDG_CONFIG_HOME") or Path(ctx.env.get("HOME") or "/") / ".config")
    path = home / "docker/daemon.json" if found.engine.rootless else Path("/etc/docker/daemon.json")
    try:
        told = json.loads((path if found.engine.rootless else ctx.root / "etc/docker/daemon.json").read_text() or "{}")
    except OSError:
        return path, {}
    except ValueError as fault:
        return path, str(fault)
    return path, told if isinstance(told, dict) else "it is no object"


def _there(ctx: CheckContext, program: str) -> bool:
    """A program of the daemon's, which has a PATH of its own."""
    if which(ctx, program):
        return True
    names = [program.lstrip("/")] if program.startswith("/") else [f"{place}/{program}".lstrip("/") for place in PLACES]
    return any((ctx.root / name).is_file() for name in names)


def _version(ctx: CheckContext) -> str:
    """The toolkit's version, for the end of a sentence; empty where it is not there."""
    told = run(ctx, "nvidia-ctk", "--version")
    if told is None or told.status != 0:
        return ""
    words = next((line for line in told.out.splitlines() if "version" in line), "")
    return f"; {words.strip()}" if words else "; nvidia-ctk is there"
