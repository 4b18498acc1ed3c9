"""Whether another user may use a folder, told from the modes of all folders on the way to it."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

READ, WRITE, PASS = 4, 2, 1
HOMES = ("/home", "/root", "/run/user")


@dataclass(frozen=True)
class User:
    """A user of this machine with all groups."""

    name: str
    uid: int
    gids: frozenset[int]


@dataclass(frozen=True)
class Barrier:
    """The first folder on the way that keeps the user out. `lacks`: read, write or pass (to enter it)."""

    place: Path
    lacks: str
    seen: str


def user(name: str) -> User | None:
    """The user of that name (or number); None where there is none."""
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        return None
    return User(entry.pw_name, entry.pw_uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def hidden_home(folder: Path, protect_home: str) -> bool:
    """Whether systemd's ProtectHome keeps a service from writing into this folder."""
    return protect_home not in ("no", "") and any(folder.is_relative_to(home) for home in HOMES)


def barrier(folder: Path, who: User, root: Path = Path("/")) -> Barrier | None:
    """What keeps `who` from reading and writing in `folder`, or from making it; None where nothing does.

    `root` stands for /. Raises OSError where this process itself may not look.
    """
    last = None
    for place in (*reversed(folder.parents), folder):
        real = root / place.relative_to("/")
        try:
            found = real.stat()
        except FileNotFoundError:
            return _lacking(last or Path("/"), root, who, WRITE | PASS, f"{place} is not there, and is to be made")
        if place != folder and (missing := _lacking(place, root, who, PASS)):
            return missing
        if not stat.S_ISDIR(found.st_mode):
            return Barrier(place, "pass", f"{place} is not a folder")
        last = place
    return _lacking(folder, root, who, READ | WRITE | PASS)


def _lacking(place: Path, root: Path, who: User, needed: int, why: str = "") -> Barrier | None:
    real = root / place.relative_to("/")
    found = real.stat()
    lacks = needed & ~_rights(found, who)
    # An access control list may give what the mode does not.
    if not lacks or _has_list(real):
        return None
    word = "pass" if lacks & PASS else "write" if lacks & WRITE else "read"
    seen = f"{stat.filemode(found.st_mode)} {_owner(found)} {place}"
    return Barrier(place, word, f"{seen}; {why}" if why else seen)


def _rights(found: os.stat_result, who: User) -> int:
    """The rights that the mode gives."""
    if who.uid == 0:
        return READ | WRITE | PASS
    if found.st_uid == who.uid:
        return found.st_mode >> 6 & 7
    return (found.st_mode >> 3 if found.st_gid in who.gids else found.st_mode) & 7


def _has_list(place: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(place)
    except OSError:
        return False


def _owner(found: os.stat_result) -> str:
    """User and group, by number where they have no name."""
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    try:
        return f"{owner} {grp.getgrgid(found.st_gid).gr_name}"
    except KeyError:
        return f"{owner} {found.st_gid}"
