"""The command line that runs an engine's container: `docker run`, or the same in Podman's words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from mscli.engines.containers.client import PODMAN
from mscli.engines.engine import Contained, Installation, Serving
from mscli.errors import Code, MscliError

INSIDE_PORT = 8000
# A limit and no reservation. Workers of one container pass tensors and NCCL's buffers through /dev/shm, of which Docker
# gives 64 MiB. The host's own (--ipc=host) would do as well, but what a killed worker leaves there stays for ever and
# fills it; this one goes with the container.
SHARED_MEMORY = "8g"
# vLLM ends at once on SIGINT; the SIGTERM that `docker stop` would send makes it wait for minutes while it starts.
STOP_SIGNAL = "SIGINT"


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
            Code.USAGE, f"a container's port is published on an address, and {host} is a name", "Give it by number."
        ) from None


def _mount(folder: Path) -> str:
    """A folder at its own place, to be read only. The value is CSV: a comma or quote in a name wants quotes."""
    fields = ("type=bind", f"src={folder}", f"dst={folder}", "readonly")
    return ",".join('"' + field.replace('"', '""') + '"' if set(field) & set(',"') else field for field in fields)


def _confinement(kind: str) -> tuple[str, ...]:
    """SELinux denies a container what lies in a home; Podman confines by it where it is on, Docker only if told to."""
    return ("--security-opt", "label=disable") if kind == PODMAN else ()
