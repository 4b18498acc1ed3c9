"""Checks of the ports that instances listen on: free, reserved, in use (by whom), or open to the network."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mscli.doctor.checks.check import Check, CheckContext, Finding, fail, ok, user_name, warn
from mscli.frozen import frozen
from mscli.instances.process import describe
from mscli.instances.records import Record, group, running
from mscli.inventory.host import text_of
from mscli.inventory.ports import addresses, listening, owner, owner_uid
from mscli.lifecycle import port as ports
from mscli.lifecycle.launch import FIRST_PORT, loopback

_EVERYWHERE = ("0.0.0.0", "::")
_UNPRIVILEGED = 1024


def _first(ctx: CheckContext) -> Iterator[Finding]:
    """The port that the next start takes: the profile's, else the first of mscli's own."""
    profile = ctx.chosen.profile if ctx.chosen else None
    if profile is not None and profile.engine == "ollama" and profile.port is None:
        return  # its server's port is looked at in the area `ollama`
    host = profile.host if profile else "127.0.0.1"
    port = (profile.port if profile else None) or FIRST_PORT
    try:
        free = ports.free(host, port)
    except OSError as fault:
        remedy = "Set the profile's host to an address of this machine (default 127.0.0.1)."
        yield fail("port", f"cannot listen on the profile's host {host}: {fault.strerror or fault}", remedy)
        return
    if free:
        yield from _free(ctx, host, port)
    else:
        yield _taken(ctx, host, port)


def _free(ctx: CheckContext, host: str, port: int) -> Iterator[Finding]:
    yield ok(f"port {port} on {host} is free")
    if ctx.chosen is None or ctx.chosen.profile.port is None:
        return  # `mscli up` takes the next one
    low, high = _outgoing(ctx)
    if low <= port <= high:
        yield warn(
            "port",
            f"port {port} is in the range of outgoing connections ({low}-{high})",
            "Reserve it:",
            command=f"sudo sysctl -w net.ipv4.ip_local_reserved_ports={port}",
        )


def _outgoing(ctx: CheckContext) -> tuple[int, int]:
    try:
        low, high = (ctx.root / "proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except (OSError, ValueError):
        return 1, 0
    return int(low), int(high)


def _taken(ctx: CheckContext, host: str, port: int) -> Finding:
    """Who has the port that a start would take first, and which one it takes instead."""
    own = next((record for record in ctx.records if record.port == port and running(record)), None)
    if own is not None and (holder := owner(port)) is not None and holder in group(own):
        return ok(f"port {port} is used by instance {own.name}")
    others = {record.port for record in ctx.records if record.stopped_at is None}
    instead = ports.choose(host, port, others)
    after = f"`mscli up` uses {instead} instead" if instead else f"none of the next 200 ports is free on {host}"
    severity, remedy = (warn if instead else fail), "Stop it, or use another port (--port):"
    if not listening(port):
        return severity("port", f"port {port} on {host} is {_reserved(ctx, port)}; {after}", remedy)
    who = port_owner(ctx, port)
    seen = f"port {port} is in use by {who.words}; {after}"
    if ctx.chosen is not None and ctx.chosen.profile.port == port:
        seen += " (clients of the profile's port reach another program)"
    return severity("port", seen, remedy, f"listens on {where(port)}", command=who.stop)


def _reserved(ctx: CheckContext, port: int) -> str:
    try:
        first = int((ctx.root / "proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        first = _UNPRIVILEGED
    if port < first:
        return f"reserved (ports below {first} need root)"
    return "bound by a process that does not listen on it"


def _pinned(ctx: CheckContext) -> Iterator[Finding]:
    """Ports that were asked for by number: a restart takes them or fails."""
    for record in ctx.records:
        port = record.request.port
        if port is None or running(record) or not listening(port):
            continue
        who, free = port_owner(ctx, port), ports.choose(record.host, record.port + 1, ()) or FIRST_PORT
        yield warn(
            "port",
            f"port {port} of {record.name} is in use by {who.words} (a restart would fail)",
            "Stop it, or start the instance on another port:",
            f"listens on {where(port)}",
            command=f"mscli up {record.plan.profile} --name {record.name} --port {free}",
        )


def _exposed(ctx: CheckContext) -> Iterator[Finding]:
    """Our own listeners that other machines reach, without a key or with paths that no key guards."""
    live = [record for record in ctx.records if record.identity and running(record)]
    found = [seen for record in live for seen in _open(record)]
    yield from found
    if live and not found:
        yield ok(f"{', '.join(record.name for record in live)}: local only, or with an API key")


def _open(record: Record) -> Iterator[Finding]:
    heard = [each for each in addresses(record.port) if each in _EVERYWHERE or not loopback(each)]
    if not heard or owner(record.port) not in (*group(record), None):
        return
    if record.api_key_file is None:
        yield warn(
            None,
            f"{record.name} listens on {where(record.port)} without an API key (open to the network)",
            "Restart it on 127.0.0.1, or with a key:",
            command=f"mscli up {record.plan.profile} --name {record.name} --host 127.0.0.1 --replace",
        )
        return
    from mscli.engines.table import engine

    if record.gateway is None and (paths := engine(record.plan.engine).capabilities.unguarded):
        yield warn(
            None,
            f"{record.name} listens on {where(record.port)}; its API key does not protect {', '.join(paths)}",
            "Block these paths with a reverse proxy, or restart it on 127.0.0.1.",
        )


_UNIT = re.compile(r"/([^/]+\.service)(?:/|$)")
_PROXY_PORT = re.compile(rb"docker-proxy.*-host-port\0(\d+)", re.DOTALL)
_DOCKER_S = 1.0


@frozen
class PortOwner:
    """Whoever listens on a port. None: not visible to this user."""

    pid: int | None
    command: str | None
    user: str | None
    unit: str | None
    container: str | None

    @property
    def words(self) -> str:
        """For people: container, service or command."""
        if self.container:
            return f"container {self.container}"
        who = self.command or f"a process of {self.user or 'another user'}"
        return f"{self.unit}, {who}" if self.unit else who

    @property
    def stop(self) -> str | None:
        """What ends it, where that is sure."""
        if self.container:
            return f"docker stop {self.container}"
        if self.unit and not self.unit.startswith("user@"):
            return f"sudo systemctl stop {self.unit}"
        return f"kill {self.pid}" if self.pid and self.pid > 1 else None


def port_owner(ctx: CheckContext, port: int) -> PortOwner:
    """Who listens on `port`. Asks Docker, for at most a second, where its proxy does."""
    pid, uid = owner(port), owner_uid(port)
    proxy = _proxy(port)
    return PortOwner(
        pid=pid,
        command=describe(pid) if pid else None,
        user=(user_name(uid) or f"UID {uid}") if uid is not None else None,
        unit=_unit(ctx.root, pid) if pid else None,
        container=_container(ctx, port) if proxy else None,
    )


def where(port: int) -> str:
    """The addresses that are listened on, in words."""
    return ", ".join(f"{f'[{each}]' if ':' in each else each}:{port}" for each in addresses(port))


def _unit(root: Path, pid: int) -> str | None:
    lines = text_of(root / f"proc/{pid}/cgroup").splitlines()
    found = [name for line in lines for name in _UNIT.findall(line)]
    return found[-1] if found else None


def _proxy(port: int) -> bool:
    """Whether a proxy of Docker's serves the port; command lines are open to every user, its sockets are not."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                line = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if (found := _PROXY_PORT.search(line)) and int(found[1]) == port:
                return True
    return False


def _container(ctx: CheckContext, port: int) -> str:
    ran = ctx.run(
        "docker", "ps", "--filter", f"publish={port}", "--format", "{{.Names}} ({{.Image}})", timeout_s=_DOCKER_S
    )
    return ran.out.strip() if ran and ran.status == 0 and ran.out.strip() else "(behind docker-proxy)"


CHECKS = (Check("ports.first", _first), Check("ports.pinned", _pinned), Check("ports.exposed", _exposed))
