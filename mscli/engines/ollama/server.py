"""The Ollama server that clients of this user reach: its address, who runs it, and with which settings."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

from mscli.engines.engine import ServerLog
from mscli.engines.installed import ask
from mscli.engines.ollama.api import Api, Refusal
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.inventory.host import holder
from mscli.inventory.ports import owner, owner_uid
from mscli.paths import on_path

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 11434
UNIT = "ollama"
SYSTEMCTL_TIMEOUT_S = 2.0
PROBE_TIMEOUT_S = 1.0
LOG_LINES = "10000"

_PROPERTIES = (
    *("LoadState", "ActiveState", "MainPID", "User", "Environment", "FragmentPath", "ExecStart"),
    *("UnitFileState", "NRestarts", "ProtectHome", "DynamicUser"),
)
# These only pass a container's port on; the server itself is inside.
_PORT_FORWARDERS = ("docker-proxy", "rootlessport", "slirp4netns", "pasta", "kubectl")


@frozen
class Address:
    """Where a server listens, as a client writes it. `path`: a prefix without slashes, of a reverse proxy."""

    scheme: str
    host: str
    port: int
    path: str = ""


@frozen
class Service:
    """The systemd service. `main_pid` None: it does not run. `program`: what it starts, None if systemd did not say.

    `state`: systemd's word for it (active, inactive, failed, activating: starting again and again). `enabled`: it is
    to run after every boot. `protect_home`: "no", or how systemd hides the homes from it (yes, read-only, tmpfs).
    """

    active: bool
    main_pid: int | None
    user: str
    environment: Mapping[str, str]
    unit_file: str
    program: Path | None
    state: str = "active"
    enabled: bool = False
    restarts: int = 0
    protect_home: str = "no"
    dynamic_user: bool = False

    @property
    def models(self) -> Path | None:
        """The folder in which it keeps its models, by its environment and its user's home."""
        return models_folder(self.environment, self.user)


@frozen
class Server:
    """A server that answers. None: unknown, as for processes of other users and for servers on other machines.

    `local`: it listens on this machine. `env`: its environment, or what its service sets of it. `container`: it runs in
    one (not the one that mscli itself may be in). `service`: the systemd service that runs it.
    """

    address: Address
    version: str
    local: bool
    pid: int | None
    user: str | None
    command: str | None
    container: str | None
    service: Service | None
    env: Mapping[str, str] | None

    @property
    def owner(self) -> str:
        """Who runs it, for people."""
        if not self.local:
            return f"a server at {self.address.host}, not on this machine"
        if self.container:
            return f"a container ({self.container})"
        if self.service:
            return f"systemd service {UNIT}, user {self.service.user}"
        if self.pid:
            return f"PID {self.pid} ({self.command}), user {self.user}"
        return f"a process of user {self.user}"

    @property
    def models(self) -> Path | None:
        """The folder in which it keeps its models, where that can be told."""
        if not self.local or self.container or self.env is None:
            return None
        return models_folder(self.env, self.user)

    @property
    def log(self) -> ServerLog:
        """Where it logs."""
        asked: tuple[str, ...]
        if not self.local:
            return ServerLog(f"on {self.address.host}")
        if self.container:
            name = self.container.partition(",")[0]
            asked = ("docker", "logs", "--tail", LOG_LINES, name)
            return ServerLog(f"the container's: docker logs -f {name}", command=asked)
        if self.service:
            asked = ("journalctl", "-u", UNIT, "-n", LOG_LINES, "--no-pager", "-q", "-o", "cat")
            return ServerLog(f"in the journal: journalctl -u {UNIT} -f", command=asked)
        try:
            target = Path(f"/proc/{self.pid}/fd/2").readlink()
        except OSError:
            return ServerLog(f"known to {self.owner} only: ask whoever started it")
        if target.is_file():
            return ServerLog(f"the file {target}", file=target)
        return ServerLog(f"not kept: PID {self.pid} writes it to {target}")

    @property
    def program(self) -> Path | None:
        """The executable that runs."""
        try:
            return Path(f"/proc/{self.pid}/exe").readlink() if self.pid and not self.container else None
        except OSError:
            return self.service.program if self.service else None


def address(value: str) -> Address:
    """OLLAMA_HOST as Ollama's own clients read it (envconfig.Host and ConnectableHost of its source).

    The port is 11434, but 80 or 443 after http:// or https://. What is bound everywhere is reached on loopback.
    """
    text = value.strip().strip("\"'").strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if separator else DEFAULT_PORT
    authority, _, path = rest.partition("/")
    host, port = _host_and_port(authority)
    valid = port.isascii() and port.isdigit() and int(port) < 65536
    return Address(scheme, _connectable(host), int(port) if valid else default, path.strip("/"))


def find(env: Mapping[str, str]) -> Server | None:
    """The server that answers: at OLLAMA_HOST (else the default address), or where the systemd service listens.

    Waits at most PROBE_TIMEOUT_S for each, and SYSTEMCTL_TIMEOUT_S for systemd. Raises ENGINE_UNSUPPORTED for an
    OLLAMA_HOST that mscli cannot serve through (HTTPS, a path).
    """
    service = systemd_service()
    for place in dict.fromkeys(_places(env, service)):
        if version := _version(place):
            return look(place, version, service)
    return None


def remote(env: Mapping[str, str]) -> Server | None:
    """The server on another machine that OLLAMA_HOST names; None where it names none.

    Waits at most PROBE_TIMEOUT_S. Raises ENGINE_MISSING where none answers there, ENGINE_UNSUPPORTED as `find` does.
    """
    place = next(_places(env, None))
    if not env.get("OLLAMA_HOST") or is_here(place.host):
        return None
    try:
        return look(place, Api(place.host, place.port).version(PROBE_TIMEOUT_S), None)
    except Refusal as refusal:
        raise MscliError(
            Code.ENGINE_MISSING,
            f"OLLAMA_HOST={env['OLLAMA_HOST']} is another machine, and no Ollama server answers there: {refusal.words}",
            "Start that server. Or run the model on this machine: unset OLLAMA_HOST",
            {"cause": "ollama_not_running"},
        ) from refusal


def look(place: Address, version: str, service: Service | None = None) -> Server:
    """Who runs the server at `place`. Reads /proc; asks systemd unless `service` is given."""
    if not is_here(place.host):
        return Server(place, version, False, None, None, None, None, None, None)
    service = service or systemd_service()
    pid, uid = owner(place.port), owner_uid(place.port)
    process = holder(pid, None, Path("/proc")) if pid else None
    user = _user_name(uid) if uid is not None else None
    command = process.command if process else None
    container = _container(pid, command, process.container if process else None)
    runs = service if service and not container and _belongs(service, pid, user) else None
    return Server(place, version, True, pid, user, command, container, runs, _environment(pid, container, runs))


def systemd_service() -> Service | None:
    """What systemd knows of Ollama's service; None without systemd or without the service.

    Waits at most SYSTEMCTL_TIMEOUT_S.
    """
    if (systemctl := on_path("systemctl")) is None:
        return None
    try:
        shown = ask([systemctl, "show", UNIT, "--property", ",".join(_PROPERTIES)], SYSTEMCTL_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
    if values.get("LoadState") != "loaded":
        return None
    program = re.search(r"path=(\S+)", values.get("ExecStart", ""))
    return Service(
        active=values.get("ActiveState") == "active",
        main_pid=int(values.get("MainPID") or 0) or None,
        user=values.get("User") or "root",
        environment=_assignments(values.get("Environment", "")),
        unit_file=values.get("FragmentPath", ""),
        program=Path(program[1]) if program else None,
        state=values.get("ActiveState", ""),
        enabled=values.get("UnitFileState") == "enabled",
        restarts=int(values.get("NRestarts") or 0),
        protect_home=values.get("ProtectHome") or "no",
        dynamic_user=values.get("DynamicUser") == "yes",
    )


def models_folder(env: Mapping[str, str], user: str | None) -> Path | None:
    """Where a server with this environment, run by `user`, keeps its models; None where that user has no home."""
    if folder := env.get("OLLAMA_MODELS"):
        return Path(folder)
    home = env.get("HOME") or _home(user)
    return Path(home) / ".ollama" / "models" if home else None


def _places(env: Mapping[str, str], service: Service | None) -> Iterator[Address]:
    asked = address(env.get("OLLAMA_HOST", ""))
    if asked.scheme != "http" or asked.path:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"OLLAMA_HOST={env['OLLAMA_HOST']}: mscli reaches an Ollama server over plain HTTP only, and at its root",
            "Give the server's own address for mscli, for example: OLLAMA_HOST=127.0.0.1:11434 mscli up",
        )
    yield asked
    if service and service.active:
        yield address(service.environment.get("OLLAMA_HOST", ""))


def _version(place: Address) -> str | None:
    try:
        return Api(place.host, place.port).version(PROBE_TIMEOUT_S)
    except Refusal:
        return None


def _host_and_port(authority: str) -> tuple[str, str]:
    """Host and port ("" if none) of `authority`, split as Go's net.SplitHostPort does it."""
    if split := re.fullmatch(r"\[([^\[\]]*)\]:([^:\[\]]*)|([^:\[\]]*):([^:\[\]]*)", authority):
        return split[1] or split[3] or "", split[2] or split[4] or ""
    return authority, ""


def _connectable(host: str) -> str:
    """What a client connects to: an address that is bound everywhere, or none at all, means this machine."""
    try:
        ip = ip_address(host.strip("[]"))
    except ValueError:
        return host or DEFAULT_HOST
    return {"0.0.0.0": DEFAULT_HOST, "::": "::1"}.get(str(ip), str(ip))


def is_here(host: str) -> bool:
    """True if `host` is an address of this machine: a socket can be bound to it."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        for family, kind, _, _, sockaddr in found[:1]:
            with socket.socket(family, kind) as attempt:
                attempt.bind(sockaddr)
    except (OSError, UnicodeError):  # no such host, or none that can be a host's name
        return False
    return True


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _home(user: str | None) -> str | None:
    try:
        return pwd.getpwnam(user).pw_dir if user else None
    except KeyError:
        return None


def _container(pid: int | None, command: str | None, cgroup: str | None) -> str | None:
    """The container that the server runs in, shortly; None outside one, and in the one that mscli is in too."""
    if command and Path(command.split()[0]).name in _PORT_FORWARDERS:
        return f"{Path(command.split()[0]).name}, PID {pid}"
    own = holder(os.getpid(), None, Path("/proc")).container
    return cgroup[:12] if cgroup and cgroup != own else None


def _belongs(service: Service, pid: int | None, user: str | None) -> bool:
    """Whether the service runs the listening process; by its user where the process cannot be seen."""
    if not service.active:
        return False
    return pid == service.main_pid if pid else user == service.user


def _environment(pid: int | None, container: str | None, service: Service | None) -> Mapping[str, str] | None:
    """The environment of the process itself where it may be read, else what its service sets; None: unknown."""
    if container:
        return None
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes() if pid else b""
    except OSError:
        raw = b""
    if raw:
        pairs = (entry.decode(errors="replace").partition("=") for entry in raw.split(b"\0"))
        return {name: value for name, equals, value in pairs if equals}
    return service.environment if service else None


def _assignments(text: str) -> dict[str, str]:
    """`A=1 "B=2 3"`, as systemd prints an environment."""
    try:
        words = shlex.split(text)
    except ValueError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)
