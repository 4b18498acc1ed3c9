"""The client of Docker or Podman: found on this machine, called with words, its answers read.

Only what both say alike is used, so that one takes the other's place. The client and no socket of our own, because it
knows the user's contexts, certificates and registries. An engine calls it under this process's environment, the doctor
under that of its visit and with shorter deadlines.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from typing import Any

from mscli.engines.environment import Contained
from mscli.errors import Code, MscliError
from mscli.frozen import field, frozen, replace
from mscli.paths import container_client, container_environment, container_settings, on_path

DOCKER, PODMAN = "docker", "podman"
TIMEOUT_S = 20.0
GET_ONE = (
    "Install Docker (https://docs.docker.com/engine/install) or Podman, or use an installed one: "
    "export MSCLI_CONTAINER_ENGINE=/path/to/docker"
)
DEFAULT_CONTEXT = "default"
_ABSENT = re.compile(r"no such (?:object|container)|no container with (?:name|ID)", re.I)


@frozen
class Client:
    """How a client is called. `kind`: docker or podman. `version`: the client's own. `settings`: which engine it speaks
    to, as variables of the environment. `env`: the rest of the environment; None: this process's."""

    argv: tuple[str, ...]
    kind: str
    version: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] | None = field(default=None, repr=False)


@frozen
class Said:
    """What one call of the client said. `status` None: it did not end in time, and `err` says so at its end."""

    status: int | None
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything it said."""
        return f"{self.out}\n{self.err}".strip()


@frozen
class Seen:
    """A container as its engine describes it. `ports`: those of this machine on which it is published."""

    running: bool
    ports: tuple[int, ...]


@frozen
class EngineInfo:
    """The container engine behind the client, empty where it does not tell. `root`: the folder where it keeps images.

    `runtimes`: OCI runtimes by name with their programs. `cdi`: devices that the engine itself found by CDI. `cgroups`:
    the driver that sets up control groups (systemd or cgroupfs). `rootless`: it runs without root's rights. `context`:
    the one by which Docker's client speaks to it.
    """

    kind: str
    version: str = ""
    root: str = ""
    runtimes: Mapping[str, str] = field(default_factory=dict)
    cdi: tuple[str, ...] = ()
    cgroups: str = ""
    rootless: bool = False
    desktop: bool = False
    context: str = ""


def client_program(env: Mapping[str, str] | None = None) -> str | None:
    """The path of the client that MSCLI_CONTAINER_ENGINE names, else of docker, else of podman, by what is on PATH."""
    named, path = container_client(env), (os.environ if env is None else env).get("PATH")
    names = [named] if named else [DOCKER, PODMAN]
    return next((found for name in names if (found := on_path(name, path=path))), None)


def no_client(env: Mapping[str, str] | None = None) -> str:
    """That there is no client, in words."""
    named = container_client(env)
    if named:
        return f"MSCLI_CONTAINER_ENGINE is {named}, and there is no such program"
    return "there is no docker or podman on PATH"


def find_client() -> Client:
    """The client of this machine (see `client_program`), started once for its version, which asks no engine.

    Raises ENGINE_MISSING.
    """
    found = client_program()
    if found is None:
        raise MscliError(Code.ENGINE_MISSING, no_client(), GET_ONE, {"cause": "engine_missing"})
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
    return {"DOCKER_CONTEXT": name} if said.status == 0 and name and name != DEFAULT_CONTEXT else {}


def client_of(contained: Contained) -> Client:
    """The client that started a container, speaking to the engine that it spoke to then."""
    return Client(contained.client, DOCKER, None, contained.env)


def call(client: Client, *words: str, timeout_s: float = TIMEOUT_S) -> Said:
    """Call the client and wait for its end, at most `timeout_s`."""
    try:
        process = subprocess.Popen(
            [*client.argv, *words], env=container_environment(client.settings, client.env),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError as fault:
        return Said(127, "", f"{client.argv[0]} could not be executed: {fault.strerror}")
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as late:
        told = f"{_text(late.stderr)}\n{words[0]} did not answer within {timeout_s:g} s"
        return Said(None, _text(late.stdout), told.strip())
    finally:  # on Ctrl-C too
        if process.returncode is None:
            process.kill()  # and no wait for its end: one that hangs in the kernel does not even die of SIGKILL
    return Said(process.returncode, _text(out), _text(err))


def throw_away(client: Client, *words: str, timeout_s: float, clean_up_s: float = TIMEOUT_S) -> Said:
    """`run` a container that ends by itself and is gone afterwards, without a network, from an image that is here.

    One that is not over in time is removed: the daemon does so whether or not `clean_up_s` is enough for its answer.
    """
    name = f"mscli-probe-{os.urandom(4).hex()}"
    said = call(client, "run", "--rm", "--pull", "never", "--network", "none", "--name", name, *words,
                timeout_s=timeout_s)  # fmt: skip
    if said.status is None:  # only the client was ended
        call(client, "rm", "-f", name, timeout_s=clean_up_s)
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
        f"{client.argv[0]} does not report the state of the container {container}: {last_line(said.text)}",
        "Check that its container engine is running, then try again.",
        {"cause": "engine_missing"},
    )


def image_id(client: Client, image: str) -> str | None:
    """The id of an image that the engine has; None when it has none of that name, or does not answer."""
    said = call(client, "image", "inspect", "--format", "{{.Id}}", image)
    return said.out.strip() or None if said.status == 0 else None


def engine_info(client: Client, timeout_s: float = TIMEOUT_S) -> EngineInfo | Said:
    """The engine behind the client, or what the client said when none answered it."""
    said = call(client, "info", "--format", "{{json .}}", timeout_s=timeout_s)
    try:
        data = json.loads(said.out[max(said.out.find("{"), 0) :])  # a wrapper may say something before it
        found = _podman_info(data) if "host" in data else _docker_info(data)
    except (ValueError, LookupError, TypeError, AttributeError):
        return said
    if found.version:
        return found
    # Docker's client exits with 0 or 1 by its version, and tells why in one of two places.
    return Said(said.status, "", "\n".join([said.err.strip(), *(data.get("ServerErrors") or ())]).strip())


def telling(text: str) -> list[str]:
    """The lines of what a client said that are no advice on its usage."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [line for line in lines if not re.search(r"See '|Run '.* --help'", line)]


def last_line(text: str) -> str:
    """The last line of what a client said that is no advice on its usage."""
    lines = telling(text)
    return lines[-1] if lines else "no output"


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace")


def _seen(data: Mapping[str, Any]) -> Seen:
    published = (data.get("NetworkSettings") or {}).get("Ports") or {}
    ports = {int(place["HostPort"]) for places in published.values() for place in places or () if place.get("HostPort")}
    return Seen(bool(data["State"]["Running"]), tuple(sorted(ports)))


def _docker_info(data: Mapping[str, Any]) -> EngineInfo:
    devices, runtimes = data.get("DiscoveredDevices") or (), data.get("Runtimes") or {}
    return EngineInfo(
        DOCKER,
        version=str(data.get("ServerVersion") or ""),
        root=str(data.get("DockerRootDir") or ""),
        runtimes={name: str((each or {}).get("path") or "") for name, each in runtimes.items()},
        cdi=tuple(str(device.get("ID")) for device in devices if device.get("Source") == "cdi"),
        cgroups=str(data.get("CgroupDriver") or ""),
        rootless=any("rootless" in str(option) for option in data.get("SecurityOptions") or ()),
        desktop="Docker Desktop" in str(data.get("OperatingSystem") or ""),
        context=str((data.get("ClientInfo") or {}).get("Context") or ""),
    )


def _podman_info(data: Mapping[str, Any]) -> EngineInfo:
    return EngineInfo(
        PODMAN,
        version=str(data["version"]["Version"]),
        root=str(data["store"]["graphRoot"]),
        cgroups=str(data["host"].get("cgroupManager") or ""),
        rootless=bool((data["host"].get("security") or {}).get("rootless")),
    )
