"""Docker or Podman as several checks see it: the client asked once what it knows of its engine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mscli.doctor.diagnosis import diagnose
from mscli.doctor.facts import facts_of
from mscli.doctor.live.check import Seen, fail, warn
from mscli.doctor.live.program import Ran, run, which
from mscli.doctor.live.scene import Scene

AREA = "containers"
DOCKER, PODMAN = "docker", "podman"
NAMES_ONE = "MSCLI_CONTAINER_ENGINE"
PROFILE_ENGINE = "vllm-docker"
# Podman starts anew for every call and takes up to a second on a slow disk.
QUICK_S, THOROUGH_S = 2.0, 20.0
IMAGES_TIMEOUT_S = 1.0
_LOCAL = re.compile(r"(?:unix|npipe|fd)://|$|tcp://(?:localhost|127\.|\[::1\])")
_CAUSE_CONFIDENCE = 0.5


@dataclass(frozen=True)
class Containers:
    """The container engine behind a client. `said`: why it gives no answer; empty where it does.

    `kind`: docker or podman. `runtimes`: OCI runtimes by name with their programs. `cdi`: devices that the engine
    itself found by CDI. `cgroups`: the driver that sets up control groups (systemd or cgroupfs).
    """

    program: str
    kind: str
    said: str = ""
    version: str = ""
    root: Path | None = None
    runtimes: Mapping[str, str] = field(default_factory=dict)
    cdi: tuple[str, ...] = ()
    cgroups: str = ""
    rootless: bool = False
    desktop: bool = False
    context: str = ""


def client(scene: Scene) -> Containers | None:
    """The container engine that mscli would use: the one that is named, else Docker, else Podman; None: no client."""
    return scene.once("containers", lambda: _client(scene))


def wanted(scene: Scene) -> bool:
    """Whether the profile asked about runs in a container."""
    return scene.chosen is not None and scene.chosen.profile.engine == PROFILE_ENGINE


def patient(scene: Scene) -> bool:
    """Whether containers may take their time: they were asked about, or the profile runs in one."""
    return AREA in scene.asked or wanted(scene)


def images(scene: Scene, found: Containers) -> tuple[str, ...]:
    """The images that the engine has, as name:tag."""
    return scene.once("images", lambda: _images(scene, found))


def grave(scene: Scene, code: str, seen: str, remedy: str, *evidence: str, command: str | None = None) -> Seen:
    """A failure where a container with a GPU could be wanted here, else a warning."""
    status = fail if wanted(scene) or scene.inventory.gpus else warn
    return status(code, seen, remedy, *evidence, command=command)


def cause_of(scene: Scene, said: str, otherwise: str) -> tuple[str, str]:
    """The cause that a client's words show, and its remedy; `otherwise` where they show none."""
    from mscli.doctor.causes import CAUSES

    found = diagnose(said, None, facts_of(scene.inventory))
    if found and found[0].confidence >= _CAUSE_CONFIDENCE:
        return found[0].code, found[0].remedy
    return otherwise, CAUSES[otherwise][1]


def last_line(said: str) -> str:
    """The last line of what a client said that is no advice on its usage."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if not re.search(r"See '|Run '.* --help'", line)]
    return telling[-1] if telling else "it said nothing"


def elsewhere(scene: Scene, found: Containers) -> str | None:
    """The address of the engine where that is another machine, whose GPUs and folders are not these; else None."""
    if found.kind == PODMAN:
        host = scene.env.get("CONTAINER_HOST", "")
    elif not (host := scene.env.get("DOCKER_HOST", "")) and found.context not in ("", "default"):
        shown = run(scene, found.program, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        host = shown.out.strip() if shown and shown.status == 0 else ""
    return None if _LOCAL.match(host) else host


def _images(scene: Scene, found: Containers) -> tuple[str, ...]:
    asked = ("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    listed = run(scene, found.program, *asked, timeout_s=IMAGES_TIMEOUT_S)
    return tuple(listed.out.split()) if listed and listed.status == 0 else ()


def _client(scene: Scene) -> Containers | None:
    named = scene.env.get(NAMES_ONE)
    program = next((path for name in ([named] if named else [DOCKER, PODMAN]) if (path := which(scene, name))), None)
    if program is None:
        return None
    patience_s = THOROUGH_S if patient(scene) else QUICK_S
    told = run(scene, program, "info", "--format", "{{json .}}", timeout_s=patience_s)
    kind = PODMAN if PODMAN in Path(program).name else DOCKER
    if told is None:
        return Containers(program, kind, "it could not be executed")
    return _read(program, kind, told, patience_s)


def _read(program: str, kind: str, told: Ran, patience_s: float) -> Containers:
    data = _json(told.out)
    try:
        found = _podman(program, data) if "host" in data else _docker(program, data)
    except (LookupError, TypeError, AttributeError):
        found = Containers(program, kind)
    if found.version:
        return found
    # Docker's client says why in one of two places, by its version.
    words = "\n".join(filter(None, [told.err.strip(), *(data.get("ServerErrors") or ())]))
    silent = f"it gave no answer within {patience_s:g} s" if told.status is None else "it said nothing"
    return Containers(program, found.kind, words or silent, context=found.context)


def _json(text: str) -> dict[str, Any]:
    begin = text.find("{")
    try:
        data = json.loads(text[begin:]) if begin >= 0 else {}
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _docker(program: str, data: Mapping[str, Any]) -> Containers:
    runtimes = data.get("Runtimes") or {}
    return Containers(
        program,
        DOCKER,
        version=str(data.get("ServerVersion") or ""),
        root=Path(data["DockerRootDir"]) if data.get("DockerRootDir") else None,
        runtimes={name: str((each or {}).get("path") or "") for name, each in runtimes.items()},
        cdi=tuple(str(each.get("ID")) for each in data.get("DiscoveredDevices") or () if each.get("Source") == "cdi"),
        cgroups=str(data.get("CgroupDriver") or ""),
        rootless=any("rootless" in str(option) for option in data.get("SecurityOptions") or ()),
        desktop="Docker Desktop" in str(data.get("OperatingSystem") or ""),
        context=str((data.get("ClientInfo") or {}).get("Context") or ""),
    )


def _podman(program: str, data: Mapping[str, Any]) -> Containers:
    host = data["host"]
    return Containers(
        program,
        PODMAN,
        version=str(data["version"]["Version"]),
        root=Path(data["store"]["graphRoot"]),
        cgroups=str(host.get("cgroupManager") or ""),
        rootless=bool((host.get("security") or {}).get("rootless")),
    )
