"""Who listens on a TCP port of this machine, as the kernel's socket tables tell."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from mscli.frozen import frozen

_LISTEN = "0A"


@frozen
class Socket:
    """A listening socket: the user it belongs to (every user may see that), its inode, and its address."""

    uid: int
    inode: str
    address: str


def listening(port: int) -> bool:
    """True while any process of this network namespace listens on `port`."""
    return any(True for _ in _sockets(port))


def owner(port: int) -> int | None:
    """The pid that listens on `port`, or None if nobody does or it belongs to another user (then only root sees it)."""
    inodes = {f"socket:[{socket.inode}]" for socket in _sockets(port)}
    if not inodes:
        return None
    return next((pid for pid, link in _socket_links() if link in inodes), None)


def listens(port: int, pids: Iterable[int]) -> bool | None:
    """True if one of `pids` listens on `port`, False if somebody else does; None where nobody does, or who it is cannot
    be seen (a process of this user that hides its descriptors)."""
    sockets = tuple(_sockets(port))
    if not sockets:
        return None
    inodes, hidden = {f"socket:[{found.inode}]" for found in sockets}, False
    for pid in pids:
        try:
            if not inodes.isdisjoint(_links(pid)):
                return True
        except FileNotFoundError:
            continue
        except OSError:
            hidden = True
    own = os.geteuid()
    if hidden or (own != 0 and any(found.uid == own for found in sockets) and owner(port) is None):
        return None
    return False


def owner_uid(port: int) -> int | None:
    """The user whose process listens on `port`; None if nobody does. Needs no rights."""
    return next((socket.uid for socket in _sockets(port)), None)


def addresses(port: int) -> tuple[str, ...]:
    """The addresses on which somebody listens on `port`; 0.0.0.0 and :: are all of this machine's. Needs no rights."""
    return tuple(dict.fromkeys(found.address for found in _sockets(port)))


def _sockets(port: int) -> Iterator[Socket]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield Socket(int(fields[7]), fields[9], _address(fields[1].rpartition(":")[0]))


def _address(digits: str) -> str:
    """An address of the kernel's tables, which hold it in words of four bytes in the order of this machine."""
    words = [bytes.fromhex(digits[place : place + 8]) for place in range(0, len(digits), 8)]
    raw = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def _socket_links() -> Iterator[tuple[int, str]]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            yield from ((int(entry), link) for link in _links(int(entry)))
        except OSError:
            continue


def _links(pid: int) -> Iterator[str]:
    """What the descriptors of a process are. Raises OSError for one that is gone, or another user's."""
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(f"/proc/{pid}/fd/{descriptor}")
