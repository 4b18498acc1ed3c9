"""TCP ports of this machine: which are free, and who holds one."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterator
from pathlib import Path

from mscli.lifecycle.process import describe

_LISTEN = "0A"


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


def owner(port: int) -> int | None:
    """The pid that listens on `port`, or None if nobody does or it belongs to another user (then only root sees it)."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not inodes:
        return None
    return next((pid for pid, link in _socket_links() if link in inodes), None)


def describe_owner(port: int) -> str:
    """Who listens on `port`, for people: `pid (command)`, or that it cannot be seen."""
    pid = owner(port)
    return describe(pid) if pid else "a process that this user may not see"


def listening(port: int) -> bool:
    """True while any process of this network namespace listens on `port`."""
    return any(True for _ in _listening_inodes(port))


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _socket_links() -> Iterator[tuple[int, str]]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            for descriptor in os.listdir(f"/proc/{entry}/fd"):
                yield int(entry), os.readlink(f"/proc/{entry}/fd/{descriptor}")
        except OSError:
            continue
