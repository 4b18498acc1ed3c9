"""Checks of containers: an engine that answers this user, and that knows how to give a container the GPUs."""

from __future__ import annotations

import grp
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mscli.doctor.checks.check import Check, CheckContext, Finding, counted, fail, ok, shell, skipped, warn
from mscli.doctor.checks.containers.engine import (
    ContainerEngine,
    Spec,
    cause_of,
    container_engine,
    fail_or_warn,
    images,
    own_containers,
    remote_host,
    specs,
    throw_away,
    wanted,
)
from mscli.engines.containers.client import DOCKER, GET_ONE, PODMAN, last_line, no_client
from mscli.engines.containers.image import TYPICAL_BYTES
from mscli.engines.containers.run import PLACES
from mscli.inventory.host import text_of
from mscli.inventory.nvml import module_version

GB = 10**9
GENERATE = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
NO_ANSWER = "the container engine does not answer"
NO_GPU = "no NVIDIA GPU on this machine"
# vLLM's image unpacked, with what is needed to unpack it; what containers that run write; what nothing runs below.
_IMAGE, _WORK, _LEAST = 3 * TYPICAL_BYTES, 5 * GB, 1 * GB


def _engine(ctx: CheckContext) -> Iterator[Finding]:
    """Whether the daemon answers this user, and is on this machine."""
    found = container_engine(ctx)
    if found is None:
        if wanted(ctx):
            yield fail("engine_missing", f"the profile runs in a container, but {no_client(ctx.env)}", GET_ONE)
        else:
            yield skipped(_no_client(ctx))
        return
    if found.said:
        yield _no_answer(ctx, found)
        return
    if host := remote_host(ctx, found):
        yield warn(
            None,
            f"{found.kind} uses another machine: {host} (other GPUs, folders and ports)",
            "To use this machine:",
            command="unset DOCKER_HOST DOCKER_CONTEXT; docker context use default",
        )
    elif found.engine.desktop and ctx.inventory.host.surroundings != "wsl":
        yield fail_or_warn(
            ctx,
            "docker_gpu",
            "Docker Desktop on Linux has no NVIDIA GPU (runs in a virtual machine)",
            "Install Docker Engine (https://docs.docker.com/engine/install) and use its context:",
            command="docker context use default",
        )
    else:
        rootless = " (rootless)" if found.engine.rootless else ""
        yield ok(f"{found.kind} {found.engine.version} answers{rootless}")


def _no_client(ctx: CheckContext) -> str:
    return no_client(ctx.env)


def _no_answer(ctx: CheckContext, found: ContainerEngine) -> Finding:
    code, remedy = cause_of(ctx, found.said, "engine_missing")
    words = last_line(found.said)
    if code == "docker_permission":
        return fail_or_warn(
            ctx, code, "no permission to use the Docker daemon", _membership(ctx), words,
            command="sudo usermod -aG docker $USER",
        )  # fmt: skip
    host = ctx.env.get("DOCKER_HOST", "")
    at = f" at DOCKER_HOST={host}" if host and found.kind == DOCKER else ""
    told = f"{found.kind} installed, but its daemon does not answer{at}"
    if code == "engine_missing":
        remedy = "Start it, or correct DOCKER_HOST:" if host else "Start it:"
    start = "sudo systemctl start docker" if found.kind == DOCKER else None
    severity = fail if wanted(ctx) else warn
    return severity(code, told, remedy, words, command=start)


def _membership(ctx: CheckContext) -> str:
    """What is missing: the membership in the group, or a login since it was given."""
    try:
        group = grp.getgrnam(DOCKER)
    except KeyError:
        return "Group docker does not exist: create it (sudo groupadd docker), restart Docker, then join it:"
    joined = ctx.env.get("USER") in group.gr_mem
    if joined and group.gr_gid not in os.getgroups():
        return "You joined group docker after this login: log in again, or run newgrp docker."
    return "Join group docker (its members can become root) and log in again; rootless Docker and Podman need no group."


def _cdi(ctx: CheckContext) -> Iterator[Finding]:
    """CDI specifications: there where needed, and of the driver that is loaded."""
    found = container_engine(ctx)
    if found is None or not ctx.inventory.gpus:
        yield skipped(_no_client(ctx) if found is None else NO_GPU)
        return
    seen = specs(ctx.root)
    if not seen:
        yield _no_spec(ctx, found)
        return
    loaded = module_version(ctx.root / "proc") or ctx.inventory.driver
    faults = {spec.path: fault for spec in seen if (fault := _stale(spec, loaded, len(ctx.inventory.gpus)))}
    for path, (what, evidence) in faults.items():
        remedy = "Regenerate it (after every driver update):"
        if path == seen[-1].path:
            yield fail_or_warn(ctx, "cdi", f"{path} {what}", remedy, *evidence, command=GENERATE)
        else:  # the last one counts for every device that it names too
            yield warn("cdi", f"{path} {what} ({seen[-1].path} overrides it)", remedy, *evidence, command=GENERATE)
    if not faults:
        yield ok(f"{', '.join(str(spec.path) for spec in seen)}: all files and devices present")


def _no_spec(ctx: CheckContext, found: ContainerEngine) -> Finding:
    if found.kind == PODMAN:
        return fail_or_warn(
            ctx, "cdi", "no CDI specification (Podman needs one for GPUs)",
            "Install nvidia-container-toolkit, then run:", command=GENERATE,
        )  # fmt: skip
    return ok("no CDI specification (not needed by Docker)")


def _stale(spec: Spec, loaded: str | None, gpus: int) -> tuple[str, tuple[str, ...]] | None:
    """What is wrong with a specification, and what shows it."""
    if spec.fault:
        return f"is not a CDI specification: {spec.fault}", ()
    if loaded and (others := spec.drivers - {loaded}):
        return f"is for driver {', '.join(sorted(others))} (loaded: {loaded})", spec.missing[:3]
    if spec.missing:
        return (
            f"names {counted(len(spec.missing), 'missing file or device', 'missing files or devices')}",
            spec.missing[:3],
        )
    if spec.gpus and len(spec.gpus) < gpus:
        return f"names {len(spec.gpus)} of {gpus} GPUs", ()
    return None


def _lasting(ctx: CheckContext) -> Iterator[Finding]:
    """Whether `systemctl daemon-reload` will take the GPUs from containers that run."""
    found = container_engine(ctx)
    if found is None or found.said or found.kind != DOCKER or not ctx.inventory.gpus:
        yield skipped("no Docker with GPUs")
        return
    config = text_of(ctx.root / "etc/nvidia-container-runtime/config.toml")
    without = re.search(r"^[ \t]*no-cgroups[ \t]*=[ \t]*(true|false)", config, re.MULTILINE)
    told = bool(without and without[1] == "true")
    engine = found.engine
    if engine.rootless != told and (engine.rootless or told):
        yield _wrong_cgroups(ctx, engine.rootless)
    elif engine.cgroups != "systemd" or engine.rootless or _linked(ctx.root):
        yield ok(f"containers keep their GPUs after a daemon-reload (cgroup driver {engine.cgroups or 'unknown'})")
    else:
        yield warn(
            "container_gpu_lost",
            "running containers lose their GPUs at `systemctl daemon-reload` (systemd cgroups, no links in /dev/char)",
            'Set "exec-opts": ["native.cgroupdriver=cgroupfs"] in /etc/docker/daemon.json, or run at every boot:',
            command="sudo nvidia-ctk system create-dev-char-symlinks --create-all",
        )


def _wrong_cgroups(ctx: CheckContext, rootless: bool) -> Finding:
    if rootless:
        return fail_or_warn(
            ctx, "docker_gpu", "rootless Docker, but NVIDIA's toolkit sets cgroups",
            "Turn that off:",
            command="sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place",
        )  # fmt: skip
    return warn(
        "container_gpu_lost",
        "no-cgroups = true in /etc/nvidia-container-runtime/config.toml (containers cannot use the GPUs)",
        "Only rootless Docker needs it:",
        command="sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups=false --in-place",
    )


def _linked(root: Path) -> bool:
    """Whether /dev/char has links to NVIDIA's devices (their major number is 195)."""
    try:
        return any(each.name.startswith("195:") for each in (root / "dev/char").iterdir())
    except OSError:
        return False


def _room(ctx: CheckContext) -> Iterator[Finding]:
    """Room where the engine, not this user, unpacks its images."""
    found = container_engine(ctx)
    if found is None or found.said or not found.engine.root or remote_host(ctx, found):
        yield skipped(_no_client(ctx) if found is None else NO_ANSWER)
        return
    root = Path(found.engine.root)
    try:
        free = shutil.disk_usage(ctx.root / root.relative_to("/")).free
    except OSError as fault:
        yield skipped(f"cannot read {root} ({fault.strerror})")
        return
    seen = f"{free / GB:.1f} GB free at {root} ({found.kind} images)"
    remedy = f"Remove unused images ({found.kind} system prune), or move data-root to a larger disk."
    if free < _LEAST:
        yield fail_or_warn(ctx, "disk_full", seen, remedy, command=f"{found.kind} system df")
    elif ctx.chosen and wanted(ctx) and ctx.chosen.profile.image not in images(ctx, found) and free < _IMAGE:
        yield fail("disk_full", f"{seen}; the profile's image needs {_IMAGE / GB:.0f} GB", remedy)
    elif free < _WORK:
        yield warn("disk_full", seen, remedy)
    else:
        yield ok(seen)


NVIDIA = "nvidia"
TOOLKIT = (
    "Install the NVIDIA Container Toolkit "
    "(https://docs.nvidia.com/datacenter/cloud-native/container-toolkit), then run:"
)
REGISTER = "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
RESTART = "sudo systemctl restart docker"
# What `--gpus` itself looks for on the daemon's PATH, whatever is registered.
_HOOK = "nvidia-container-runtime-hook"


def runtime(ctx: CheckContext) -> Iterator[Finding]:
    """The nvidia runtime or CDI, as the daemon knows it and as its configuration says."""
    found = container_engine(ctx)
    if found is None or found.kind != DOCKER:
        yield skipped("no Docker")
        return
    path, told = _configuration(ctx, found)
    if isinstance(told, str):
        yield fail_or_warn(
            ctx, "docker_gpu", f"{path} is not valid JSON (Docker does not start)", "Find the error:", told,
            command=f"python3 -m json.tool {shell(path)}",
        )  # fmt: skip
        return
    if found.said:
        yield skipped("Docker does not answer")
    elif not ctx.inventory.gpus:
        yield from _without_gpu(ctx)
    else:
        yield _judged(ctx, found, "nvidia" in (told.get("runtimes") or {}), path)


def _without_gpu(ctx: CheckContext) -> Iterator[Finding]:
    if not wanted(ctx) or (ctx.chosen and ctx.chosen.profile.device == "cpu"):
        yield skipped(NO_GPU)
        return
    why = ctx.inventory.nvml.message if ctx.inventory.nvml else "NVML lists none"
    yield fail(
        "docker_gpu",
        f"the profile runs in a container with GPUs, but {NO_GPU}",
        "Check the host first:",
        why,
        command="mscli doctor --only driver",
    )


def _judged(ctx: CheckContext, found: ContainerEngine, configured: bool, path: Path) -> Finding:
    by_cdi = [each for each in found.engine.cdi if each.startswith("nvidia.com/gpu")]
    if NVIDIA in found.engine.runtimes:
        program = found.engine.runtimes[NVIDIA] or "nvidia-container-runtime"
        if _there(ctx, program):
            return ok(f"Docker runtime nvidia: {program}{_version(ctx)}")
        seen = f"Docker runtime nvidia: program {program} not found"
        return fail_or_warn(ctx, "docker_gpu", seen, TOOLKIT, command=REGISTER)
    if by_cdi:
        return ok(f"Docker with CDI ({counted(len(by_cdi), 'device')}){_version(ctx)}")
    if configured:
        seen = f"runtime nvidia in {path}, but not in the running daemon"
        return fail_or_warn(ctx, "docker_gpu", seen, "Restart Docker (running containers stop):", command=RESTART)
    names = f"runtimes: {', '.join(found.engine.runtimes) or 'none'}"
    if _there(ctx, _HOOK):
        # What --gpus needs is there; only a container can tell whether the daemon found it when it started.
        seen = "no Docker runtime nvidia (--gpus may work: the toolkit's hook is installed)"
        return warn("docker_gpu", seen, "Register it:", names, command=REGISTER)
    if _version(ctx):
        seen = "NVIDIA Container Toolkit installed, but not registered in Docker (no runtime nvidia, no CDI)"
        return fail_or_warn(ctx, "docker_gpu", seen, "Register it:", names, command=REGISTER)
    seen = "no GPU in containers: NVIDIA Container Toolkit not installed"
    return fail_or_warn(ctx, "docker_gpu", seen, TOOLKIT, names, command=REGISTER)


def _configuration(ctx: CheckContext, found: ContainerEngine) -> tuple[Path, Mapping[str, Any] | str]:
    """The daemon's configuration, or what is wrong with it; nothing in it where there is none."""
    home = Path(ctx.env.get("XDG_CONFIG_HOME") or Path(ctx.env.get("HOME") or "/") / ".config")
    path = home / "docker/daemon.json" if found.engine.rootless else Path("/etc/docker/daemon.json")
    try:
        told = json.loads((path if found.engine.rootless else ctx.root / "etc/docker/daemon.json").read_text() or "{}")
    except OSError:
        return path, {}
    except ValueError as fault:
        return path, str(fault)
    return path, told if isinstance(told, dict) else "not a JSON object"


def _there(ctx: CheckContext, program: str) -> bool:
    """A program of the daemon's, which has a PATH of its own."""
    if ctx.which(program):
        return True
    names = [program.lstrip("/")] if program.startswith("/") else [f"{place}/{program}".lstrip("/") for place in PLACES]
    return any((ctx.root / name).is_file() for name in names)


def _version(ctx: CheckContext) -> str:
    """The toolkit's version, for the end of a sentence; empty where it is not there."""
    told = ctx.run("nvidia-ctk", "--version")
    if told is None or told.status != 0:
        return ""
    words = next((line for line in told.out.splitlines() if "version" in line), "")
    return f"; {words.strip()}" if words else "; nvidia-ctk found"


CHECKS = (
    Check("containers.engine", _engine, thorough_s=30.0),
    Check("containers.runtime", runtime, thorough_s=30.0),
    Check("containers.cdi", _cdi, thorough_s=30.0),
    Check("containers.lasting", _lasting, thorough_s=30.0),
    Check("containers.gpus", throw_away, thorough_s=120.0),
    Check("containers.own", own_containers, thorough_s=60.0),
    Check("containers.disk", _room, thorough_s=30.0),
)
