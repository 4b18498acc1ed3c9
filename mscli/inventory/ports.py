"""Who listens on a TCP port of this machine, as the kernel tells: asked, or read off its socket tables."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from mscli.frozen import frozen

_LISTEN = "0A"
_TABLES = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}
# Of netlink.h, sock_diag.h and inet_diag.h: the parts of a question for listening sockets, and of its answers.
_SOCK_DIAG, _ASK_ALL, _DONE, _BY_FAMILY, _LISTENING, _LONGEST = 4, 0x301, 3, 20, 1 << 10, 1 << 16
_HEAD, _WANTED, _FOUND = struct.Struct("=IHHII"), struct.Struct("=BBBxI2s46x"), struct.Struct("=4x2s2x16s40xII")
_ANSWER_S = 1.0


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
    for family in _TABLES:
        try:
            yield from _asked(port, family)
        except (OSError, struct.error):  # a kernel, or a sandbox, that does not answer such questions
            yield from _read(port, family)


def _asked(port: int, family: socket.AddressFamily) -> list[Socket]:
    """The listening sockets of a port, by a question to the kernel: its tables hold all connections too, and take 7 ms.

    Raises OSError and struct.error where it cannot be asked.
    """
    question = _WANTED.pack(family, socket.IPPROTO_TCP, 0, _LISTENING, port.to_bytes(2, "big"))
    found: list[Socket] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as link:
        link.settimeout(_ANSWER_S)
        link.send(_HEAD.pack(_HEAD.size + len(question), _BY_FAMILY, _ASK_ALL, 0, 0) + question)
        while True:
            said, at = link.recv(_LONGEST), 0
            while at < len(said):
                length, kind, *_ = _HEAD.unpack_from(said, at)
                if kind == _DONE:
                    return found
                if kind != _BY_FAMILY:
                    raise OSError(f"no answer about sockets: {kind}")
                of, raw, uid, inode = _FOUND.unpack_from(said, at + _HEAD.size)
                address = socket.inet_ntop(family, raw[:4] if family == socket.AF_INET else raw)
                if of == port.to_bytes(2, "big"):
                    found.append(Socket(uid, str(inode), address))
                at += (length + 3) & ~3


def _read(port: int, family: socket.AddressFamily) -> Iterator[Socket]:
    """The same, read off the kernel's table of all sockets."""
    try:
        rows = Path(_TABLES[family]).read_text().splitlines()[1:]
    except OSError:
        return
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
