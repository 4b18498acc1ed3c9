"""Whether the container engine of this machine answers, and can give a container these GPUs: found out before
gigabytes are fetched for it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from mscli.engines.containers.client import (
    DEFAULT_CONTEXT,
    DOCKER,
    TIMEOUT_S,
    Client,
    EngineInfo,
    Said,
    call,
    engine_info,
    last_line,
    throw_away,
)
from mscli.engines.containers.run import gpus
from mscli.engines.containers.signs import container_cause
from mscli.engines.engine import Cause

# Starting a container takes a second; the first one after a restart of the machine much longer.
PATIENCE_S = 90.0
_LOCAL = re.compile(r"(?:unix|npipe|fd)://|$|tcp://(?:localhost|127\.|\[::1\])")
_HOOKS = ("nvidia-container-runtime-hook", "nvidia-container-toolkit", "nvidia-container-runtime")
_SPECIFICATIONS = (Path("/etc/cdi"), Path("/var/run/cdi"))
# Where the daemon, which has a PATH of its own, may find the toolkit's programs.
PLACES = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/toolkit", "/run/current-system/sw/bin")


def probe_engine(client: Client) -> EngineInfo | Cause:
    """The container engine behind the client, or why none answers. Waits at most 20 s."""
    found = engine_info(client)
    if isinstance(found, EngineInfo):
        return found
    said = found.text
    unknown = Cause("engine_missing", f"{client.argv[0]} reaches no container engine", "Try: docker info", ())
    cause = container_cause(said) or unknown
    return cause if cause.evidence else Cause(cause.code, cause.summary, cause.remedy, (last_line(said),))


def remote(client: Client, context: str = "", timeout_s: float = TIMEOUT_S) -> str | None:
    """The address of the engine where that is another machine, whose GPUs and folders are not these.

    `context`: that of Docker's client, where it is known; empty: it is asked.
    """
    if client.kind != DOCKER:
        host = client.settings.get("CONTAINER_HOST", "")
    elif not (host := client.settings.get("DOCKER_HOST", "")) and context != DEFAULT_CONTEXT:
        said = call(client, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}", timeout_s=timeout_s)
        host = said.out.strip() if said.status == 0 else ""
    return None if _LOCAL.match(host) else host


def no_runtime(client: Client, engine: EngineInfo) -> Cause | None:
    """Why the engine surely cannot give a container a GPU; None where it may. Starts nothing: for the time in which
    there is no image yet to try it with."""
    if client.kind != DOCKER or "nvidia" in engine.runtimes or engine.cdi or engine.rootless:
        return None
    path = os.pathsep.join((os.environ.get("PATH", ""), *PLACES))
    specified = any(file for folder in _SPECIFICATIONS if folder.is_dir() for file in folder.iterdir())
    if specified or any(shutil.which(name, path=path) for name in _HOOKS):
        return None
    cause = container_cause("could not select device driver")
    assert cause is not None
    seen = f"runtimes: {', '.join(engine.runtimes) or 'none'}; no NVIDIA Container Toolkit is installed"
    return Cause(cause.code, cause.summary, cause.remedy, (seen,))


def probe_gpus(client: Client, image: str, devices: Sequence[str]) -> Cause | None:
    """Why a container of `image` does not get these GPUs (by UUID); None if it does.

    Runs nvidia-smi in a throw-away container, which is gone afterwards. Waits at most 90 s.
    """
    words = (*gpus(client.kind, devices), "--entrypoint", "nvidia-smi", image, "-L")
    said = throw_away(client, *words, timeout_s=PATIENCE_S)
    missing = [uuid for uuid in devices if uuid not in said.out]
    if said.status == 0 and not missing:
        return None
    return container_cause(said.text) or _unnamed(said, missing)


def _unnamed(said: Said, missing: Sequence[str]) -> Cause:
    remedy = "Try it by hand: docker run --rm --gpus all IMAGE nvidia-smi"
    if said.status == 0:
        return Cause("visible_devices", f"the container does not see {', '.join(missing)}", remedy, (said.out.strip(),))
    return Cause("docker_gpu", "a container with GPUs could not be run", remedy, (last_line(said.text),))
