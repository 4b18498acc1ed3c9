"""Checks of the ports that instances listen on: free, reserved, kept by somebody, or open to the network."""

from __future__ import annotations

from collections.abc import Iterator

from mscli.doctor.checks.check import Check, Finding, fail, ok, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.port_owner import port_owner, where
from mscli.instances.records import Record, group, running
from mscli.inventory.ports import addresses, listening, owner
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
        who = port_owner(ctx, port)
        yield warn(
            "port",
            f"port {port} of {record.name} is in use by {who.words} (a restart would fail)",
            "Stop it, or start the instance on another port:",
            f"listens on {where(port)}",
            command=f"mscli up {record.plan.profile} --name {record.name} --port {_next(record)}",
        )


def _next(record: Record) -> int:
    return ports.choose(record.host, record.port + 1, ()) or FIRST_PORT


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

    if paths := engine(record.plan.engine).capabilities.unguarded:
        yield warn(
            None,
            f"{record.name} listens on {where(record.port)}; its API key does not protect {', '.join(paths)}",
            "Block these paths with a reverse proxy, or restart it on 127.0.0.1.",
        )


CHECKS = (Check("ports.first", _first), Check("ports.pinned", _pinned), Check("ports.exposed", _exposed))
