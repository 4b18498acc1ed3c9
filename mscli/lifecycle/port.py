"""TCP ports of this machine: which are free, and who holds one."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection

from mscli.inventory.ports import listening, owner
from mscli.lifecycle.process import describe

__all__ = ["choose", "describe_owner", "free", "listening", "owner"]


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


def choose(host: str, start: int, taken: Collection[int]) -> int | None:
    """The first free port from `start` on that is not in `taken`; None if 200 in a row are in use."""
    candidates = range(start, min(start + 200, 65536))
    return next((port for port in candidates if port not in taken and free(host, port)), None)


def describe_owner(port: int) -> str:
    """Who listens on `port`, for people: `pid (command)`, or that it cannot be seen."""
    pid = owner(port)
    return describe(pid) if pid else "a process that this user may not see"
