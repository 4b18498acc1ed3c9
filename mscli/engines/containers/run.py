"""Running an engine's container: whether the container engine of this machine can, the folders that the container must
see, and the command line, `docker run` or the same in Podman's words.

Whether it can is found out before gigabytes are fetched for it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from mscli.diagnosis.causes import Cause
from mscli.diagnosis.diagnose import client_failure
from mscli.engines.containers.client import (
    DEFAULT_CONTEXT,
    DOCKER,
    PODMAN,
    TIMEOUT_S,
    Client,
    EngineInfo,
    Said,
    call,
    engine_info,
    last_line,
    throw_away,
)
from mscli.engines.engine import Installation, Serving
from mscli.engines.environment import Contained
from mscli.errors import Code, MscliError
from mscli.paths import on_path

INSIDE_PORT = 8000
# A limit and no reservation. Workers of one container pass tensors and NCCL's buffers through /dev/shm, of which Docker
# gives 64 MiB. The host's own (--ipc=host) would do as well, but what a killed worker leaves there stays for ever and
# fills it; this one goes with the container.
SHARED_MEMORY = "8g"
# vLLM ends at once on SIGINT; the SIGTERM that `docker stop` would send makes it wait for minutes while it starts.
STOP_SIGNAL = "SIGINT"
# Starting a container takes a second; the first one after a restart of the machine much longer.
PATIENCE_S = 90.0
_LOCAL = re.compile(r"(?:unix|npipe|fd)://|$|tcp://(?:localhost|127\.|\[::1\])")
_HOOKS = ("nvidia-container-runtime-hook", "nvidia-container-toolkit", "nvidia-container-runtime")
_SPECIFICATIONS = (Path("/etc/cdi"), Path("/var/run/cdi"))
# Where the daemon, which has a PATH of its own, may find the toolkit's programs.
PLACES = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/toolkit", "/run/current-system/sw/bin")
_LINKS_AT_MOST = 40  # as many as the kernel follows


def contained(serving: Serving, found: Installation, image: str) -> Contained:
    """The container of an instance. Two users, or two homes, may have instances of one name on one Docker."""
    place = hashlib.sha256(str(serving.run_dir).encode()).hexdigest()[:6]
    # in `tmp`, which goes with the instance: the client refuses a file that is there already
    return Contained(
        found.argv, found.env, f"mscli-{serving.name}-{place}", serving.run_dir / "tmp" / "container", image
    )


def run(
    what: Contained,
    kind: str,
    serving: Serving,
    devices: Sequence[str],
    mounts: Iterable[Path],
    env: Mapping[str, str],
    inherited: Iterable[str],
) -> tuple[str, ...]:
    """`docker run` up to the image. `env` is set inside; `inherited` are variables that the client hands on from its
    own environment, so that their values stand in no command line."""
    return (
        *what.client, "run", "--rm", "--pull", "never", "--name", what.name, "--cidfile", str(what.cidfile),
        "--label", f"mscli.instance={serving.name}", "--label", f"mscli.folder={serving.run_dir}",
        "--stop-signal", STOP_SIGNAL, "--shm-size", SHARED_MEMORY,
        *gpus(kind, devices),
        "--publish", f"{_address(serving.host)}:{serving.port}:{INSIDE_PORT}",
        *(word for folder in mounts for word in ("--mount", _mount(folder))),
        *(word for name, value in env.items() for word in ("--env", f"{name}={value}")),
        *(word for name in inherited for word in ("--env", name)),
        *_confinement(kind),
    )  # fmt: skip


def gpus(kind: str, devices: Sequence[str]) -> tuple[str, ...]:
    """The flags that give a container these GPUs, by UUID (GPU-... or MIG-...); none for none."""
    if not devices:
        return ()
    if kind == PODMAN:  # which knows GPUs by their CDI names
        return tuple(word for uuid in devices for word in ("--device", f"nvidia.com/gpu={uuid}"))
    # Docker reads the value as CSV: without quotes of its own, the second UUID would be another field.
    return ("--gpus", f'"device={",".join(devices)}"')


def tag_version(image: str) -> str | None:
    """The version that an image's tag states: "0.32.0" for vllm/vllm-openai:v0.32.0; None for `latest` and the like."""
    tag = re.search(r":(v?\d+\.\d+[^/@]*)(?:@|$)", image)
    return tag[1].removeprefix("v") if tag else None


def _address(host: str) -> str:
    """The address to publish on, as `--publish` takes it. Raises USAGE for a name, which it does not take."""
    known = {"localhost": "127.0.0.1"}.get(host, host)
    try:
        return f"[{known}]" if ip_address(known).version == 6 else known
    except ValueError:
        raise MscliError(
            Code.USAGE, f"a container's port is published on an address, and {host} is a name", "Use an IP address."
        ) from None


def _mount(folder: Path) -> str:
    """A folder at its own place, to be read only. The value is CSV: a comma or quote in a name wants quotes."""
    fields = ("type=bind", f"src={folder}", f"dst={folder}", "readonly")
    return ",".join('"' + field.replace('"', '""') + '"' if set(field) & set(',"') else field for field in fields)


def _confinement(kind: str) -> tuple[str, ...]:
    """SELinux denies a container what lies in a home; Podman confines by it where it is on, Docker only if told to."""
    return ("--security-opt", "label=disable") if kind == PODMAN else ()


def probe_engine(client: Client) -> EngineInfo | Cause:
    """The container engine behind the client, or why none answers. Waits at most 20 s."""
    found = engine_info(client)
    if isinstance(found, EngineInfo):
        return found
    said = found.text
    unknown = Cause("engine_missing", f"{client.argv[0]} cannot reach a container engine", "Try: docker info", ())
    cause = client_failure(said) or unknown
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
    if specified or any(on_path(name, path=path) for name in _HOOKS):
        return None
    cause = client_failure("could not select device driver")
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
    return client_failure(said.text) or _unnamed(said, missing)


def _unnamed(said: Said, missing: Sequence[str]) -> Cause:
    remedy = "Try it yourself: docker run --rm --gpus all IMAGE nvidia-smi"
    if said.status == 0:
        return Cause("visible_devices", f"the container does not see {', '.join(missing)}", remedy, (said.out.strip(),))
    return Cause("docker_gpu", "cannot run a container with GPUs", remedy, (last_line(said.text),))


def folders(model: Path) -> tuple[Path, ...]:
    """The folders to mount, each at its own place, so that every link reads the same inside and outside.

    A snapshot of the hub's cache is a folder of relative links into the `blobs` beside it; a folder brought by disk may
    hold links to anywhere. None lies below another. Reads the folder; empty when it is not there.
    """
    real = model.resolve()
    if not real.exists():
        return ()
    wanted = {real if real.is_dir() else real.parent}
    files = (Path(top, name) for top, _, names in os.walk(real) for name in names)
    for file in files if real.is_dir() else iter([real]):
        wanted |= {place.parent for place in _ways(file)}
    return _outermost({*wanted, *_repositories(wanted)})


def _ways(file: Path) -> Iterator[Path]:
    """Every place that a file's links lead over, and where its bytes lie."""
    place = file
    for _ in range(_LINKS_AT_MOST):
        if not place.is_symlink():
            break
        place = Path(os.path.normpath(place.parent / place.readlink()))
        yield place
    if place.exists():
        yield place.resolve()


def _repositories(found: set[Path]) -> set[Path]:
    """Of a snapshot and its blobs, the folder of the repository that holds both: one mount in place of two."""
    return {
        folder.parent.parent
        for folder in found
        if folder.parent.name == "snapshots" and folder.parent.parent / "blobs" in found
    }


def _outermost(found: set[Path]) -> tuple[Path, ...]:
    return tuple(sorted(folder for folder in found if not any(parent in found for parent in folder.parents)))
