"""TCP ports of this machine: which are free, and who holds one."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from mscli.instances.process import describe
from mscli.inventory.ports import listening, owner

__all__ = ["choose", "claim", "describe_owner", "free", "kept", "listening", "owner"]


def free(host: str, port: int) -> bool:
    """True if a server could listen on host:port now. Raises OSError when `host` is no address of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError as fault:
            if fault.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def claim(port: int) -> socket.socket | None:
    """Claim `port` against every other mscli of this machine, or None if one of them has claimed it.

    Between the choice of a port and the moment the engine binds it, another user's mscli could choose it too. The claim
    is a name that only one socket can hold; the engine inherits it, so it lasts exactly as long as the engine.
    """
    return _held(f"\0mscli-port-{port}")


@contextmanager
def kept(port: int) -> Iterator[None]:
    """Meanwhile no mscli chooses `port`, also while nothing holds it: between a server and its successor."""
    holder = _held(f"\0mscli-port-{port}-kept")
    try:
        yield
    finally:
        if holder:
            holder.close()


def _held(name: str) -> socket.socket | None:
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.bind(name)
    except OSError:
        holder.close()
        return None
    return holder


def choose(host: str, start: int, taken: Collection[int]) -> int | None:
    """The first free, unclaimed port from `start` on that is not in `taken`; None if 200 in a row are in use."""
    candidates = range(start, min(start + 200, 65536))
    return next((port for port in candidates if port not in taken and free(host, port) and _unclaimed(port)), None)


def _unclaimed(port: int) -> bool:
    holders = [claim(port), _held(f"\0mscli-port-{port}-kept")]
    for holder in holders:
        if holder:
            holder.close()
    return None not in holders


def describe_owner(port: int) -> str:
    """Who listens on `port`, for people: `pid (command)`, or that it cannot be seen."""
    pid = owner(port)
    return describe(pid) if pid else "a process of another user"
