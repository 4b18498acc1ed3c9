"""The client of Docker or Podman: found on this machine, called with words, its answers read.

Only what both say alike is used, so that one takes the other's place. The client and no socket of our own, because it
knows the user's contexts, certificates and registries.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mscli.engines.engine import Contained
from mscli.errors import Code, MscliError
from mscli.paths import container_client, container_environment, container_settings

DOCKER, PODMAN = "docker", "podman"
TIMEOUT_S = 20.0
GET_ONE = (
    "Install Docker (https://docs.docker.com/engine/install) or Podman, or name one that is there: "
    "export MSCLI_CONTAINER_ENGINE=/path/to/docker"
)
_ABSENT = re.compile(r"no such (?:object|container)|no container with (?:name|ID)", re.I)


@dataclass(frozen=True)
class Client:
    """How a client is called. `kind`: docker or podman. `version`: the client's own. `settings`: which engine it speaks
    to, as variables of the environment."""

    argv: tuple[str, ...]
    kind: str
    version: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """What one call of the client said. `status` None: it did not end in time."""

    status: int | None
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything it said."""
        return f"{self.out}\n{self.err}".strip()


@dataclass(frozen=True)
class Seen:
    """A container as its engine describes it. `ports`: those of this machine on which it is published."""

    running: bool
    ports: tuple[int, ...]


@dataclass(frozen=True)
class EngineInfo:
    """The container engine behind the client. `root`: the folder where it keeps images. `runtimes`: names of OCI
    runtimes. `cdi`: GPUs by CDI that it knows, where it tells. `rootless`: it runs without root's rights."""

    version: str
    root: str
    runtimes: tuple[str, ...] = ()
    cdi: tuple[str, ...] = ()
    rootless: bool = False


def find_client() -> Client:
    """The client that MSCLI_CONTAINER_ENGINE names, else docker, else podman, by what is on PATH.

    Starts it once for its version, which asks no engine. Raises ENGINE_MISSING.
    """
    named = container_client()
    found = next((path for name in ([named] if named else [DOCKER, PODMAN]) if (path := shutil.which(name))), None)
    if found is None:
        what = f"MSCLI_CONTAINER_ENGINE is {named}, and there is no such program" if named else "no docker or podman"
        where = "" if named else " on PATH"
        raise MscliError(Code.ENGINE_MISSING, f"{what}{where}", GET_ONE, {"cause": "engine_missing"})
    settings = container_settings()
    said = call(Client((found,), DOCKER, None, settings), "--version").text
    version = re.search(r"version ([\d.]+[\w.+~-]*)", said)
    # Podman can be installed under Docker's name; what it says of itself decides.
    kind = PODMAN if said.lower().startswith("podman") else DOCKER
    client = Client((found,), kind, version[1].rstrip(",") if version else None, settings)
    return replace(client, settings={**settings, **_context(client)}) if kind == DOCKER else client


def _context(client: Client) -> dict[str, str]:
    """The context that the user has switched to, so that it is remembered with what is started under it."""
    if {"DOCKER_HOST", "DOCKER_CONTEXT"} & set(client.settings):
        return {}
    said = call(client, "context", "inspect", "--format", "{{.Name}}")
    name = said.out.strip()
    return {"DOCKER_CONTEXT": name} if said.status == 0 and name and name != "default" else {}


def client_of(contained: Contained) -> Client:
    """The client that started a container, speaking to the engine that it spoke to then."""
    return Client(contained.client, DOCKER, None, contained.env)


def call(client: Client, *words: str, timeout_s: float = TIMEOUT_S) -> Said:
    """Call the client and wait for its end, at most `timeout_s`."""
    try:
        done = subprocess.run(
            [*client.argv, *words],
            env=container_environment(client.settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        err = late.stderr.decode(errors="replace") if isinstance(late.stderr, bytes) else late.stderr or ""
        return Said(None, "", f"{err}\n{words[0]} gave no answer within {timeout_s:.0f} s".strip())
    except OSError as fault:
        return Said(127, "", f"{client.argv[0]} could not be executed: {fault.strerror}")
    return Said(done.returncode, done.stdout, done.stderr)


def throw_away(client: Client, *words: str, timeout_s: float) -> Said:
    """`run` a container that ends by itself and is gone afterwards, without a network, from an image that is here."""
    name = f"mscli-probe-{os.urandom(4).hex()}"
    said = call(client, "run", "--rm", "--pull", "never", "--network", "none", "--name", name, *words,
                timeout_s=timeout_s)  # fmt: skip
    if said.status is None:  # only the client was ended
        call(client, "rm", "-f", name)
    return said


def look(client: Client, container: str) -> Seen | None:
    """A container by name or id, None if there is none. Raises ENGINE_MISSING when its engine does not answer."""
    said = call(client, "container", "inspect", container)
    if said.status == 0:
        try:
            return _seen(json.loads(said.out)[0])
        except (ValueError, LookupError, TypeError, AttributeError):
            pass
    elif _ABSENT.search(said.err):
        return None
    raise MscliError(
        Code.ENGINE_MISSING,
        f"{client.argv[0]} does not tell what became of the container {container}: {last_line(said.text)}",
        "Is its container engine running? Then try again.",
        {"cause": "engine_missing"},
    )


def image_id(client: Client, image: str) -> str | None:
    """The id of an image that the engine has; None when it has none of that name, or does not answer."""
    said = call(client, "image", "inspect", "--format", "{{.Id}}", image)
    return said.out.strip() or None if said.status == 0 else None


def engine_info(client: Client) -> EngineInfo | Said:
    """The engine behind the client, or what the client said when none answered it."""
    said = call(client, "info", "--format", "{{json .}}")
    try:
        data = json.loads(said.out)
        found = _podman_info(data) if "host" in data else _docker_info(data)
    except (ValueError, LookupError, TypeError, AttributeError):
        return said
    if found.version:
        return found
    # Docker's client exits with 0 or 1 by its version, and tells why in one of two places.
    return Said(said.status, "", "\n".join([said.err.strip(), *(data.get("ServerErrors") or ())]).strip())


def last_line(text: str) -> str:
    """The last line of what a client said that is no advice on its usage."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not re.search(r"See '|Run '.* --help'", line)]
    return telling[-1] if telling else "it said nothing"


def _seen(data: Mapping[str, Any]) -> Seen:
    published = (data.get("NetworkSettings") or {}).get("Ports") or {}
    ports = {int(place["HostPort"]) for places in published.values() for place in places or () if place.get("HostPort")}
    return Seen(bool(data["State"]["Running"]), tuple(sorted(ports)))


def _docker_info(data: Mapping[str, Any]) -> EngineInfo:
    devices = data.get("DiscoveredDevices") or ()
    return EngineInfo(
        version=str(data.get("ServerVersion") or ""),
        root=str(data.get("DockerRootDir") or ""),
        runtimes=tuple(data.get("Runtimes") or ()),
        cdi=tuple(str(device.get("ID")) for device in devices if device.get("Source") == "cdi"),
        rootless=any("rootless" in str(option) for option in data.get("SecurityOptions") or ()),
    )


def _podman_info(data: Mapping[str, Any]) -> EngineInfo:
    return EngineInfo(
        version=str(data["version"]["Version"]),
        root=str(data["store"]["graphRoot"]),
        rootless=bool(data["host"].get("security", {}).get("rootless")),
    )
