"""The folder of Ollama's models: whether the server's own user may use it, and how much room there is.

What another user may do is told from the modes of all folders on the way.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from mscli.doctor.checks.check import CheckContext, Finding, fail, ok, shell, skipped, user_name, warn
from mscli.doctor.checks.ollama_server import NAME, ollama
from mscli.engines.ollama.api import Api, Refusal
from mscli.frozen import frozen

GB = 10**9
# One of the models in four bits, with what a pull needs beside it; and what every server needs to work at all.
_ONE_MODEL, _LEAST = 16 * GB, 1 * GB


@frozen
class _Place:
    folder: Path
    user: str
    protect_home: str
    dynamic_user: bool


def folder_access(ctx: CheckContext) -> Iterator[Finding]:
    """Permissions on every folder on the way to the models, for the user that runs the server."""
    place = _place(ctx)
    if place is None:
        yield skipped("models folder unknown (no server, no service)")
        return
    if hidden_home(place.folder, place.protect_home):
        yield fail(
            "permissions",
            f"the service cannot see {place.folder} (ProtectHome={place.protect_home})",
            "Set OLLAMA_MODELS outside home folders (/srv/ollama), or ProtectHome=no:",
            command="sudo systemctl edit ollama",
        )
        return
    who = user(place.user)
    if who is None and place.dynamic_user:
        yield skipped(f"user {place.user} exists only while the service runs")
        return
    if who is None:
        yield fail(
            "permissions",
            f"the Ollama service's user {place.user} does not exist",
            "Create it, or reinstall Ollama:",
            command=f"sudo useradd -r -s /bin/false -U -m -d /usr/share/ollama {place.user}",
        )
        return
    try:
        found = barrier(place.folder, who, ctx.root)
    except OSError as fault:
        yield skipped(f"cannot read {place.folder} ({fault.strerror})")
        return
    if found is None:
        yield ok(f"user {who.name} can read and write {place.folder}")
        return
    yield fail(
        "permissions",
        f"Ollama's user {who.name} has no {found.lacks} permission on {found.place} (models in {place.folder})",
        "Change it, or set OLLAMA_MODELS to another folder in the service's environment:",
        found.seen,
        command=_mend(found.place, place, found.lacks),
    )


def folder_room(ctx: CheckContext) -> Iterator[Finding]:
    """Room where the server, not this shell, puts what it pulls."""
    place = _place(ctx)
    free = _free(ctx.root, place.folder) if place else None
    if place is None or free is None:
        yield skipped("the server's models folder is unknown")
        return
    held = _held(ctx)
    needed = _needed(ctx, held)
    seen = f"{free / GB:.1f} GB free at {place.folder} (Ollama models)"
    remedy = "Remove models (ollama list, ollama rm NAME), or move OLLAMA_MODELS to a larger disk."
    if free < (needed if needed is not None else _LEAST):
        more = f"; the profile's weights need {needed / GB:.1f} GB" if needed else ""
        yield fail("disk_full", seen + more, remedy, command=f"df -h {shell(place.folder)}")
    elif not held and needed is None and free < _ONE_MODEL:
        yield warn("disk_full", f"{seen}, less than a 4-bit 24B model needs", remedy)
    else:
        yield ok(seen)


def _place(ctx: CheckContext) -> _Place | None:
    """The folder of the server that answers; else of the service that would."""
    seen = ollama(ctx)
    server, service = seen.server, seen.service
    if server:
        if server.models is None or server.user is None:
            return None
        by = server.service
        return _Place(server.models, server.user, by.protect_home if by else "no", bool(by and by.dynamic_user))
    if service is None:
        return None
    # A user without a home is told by its own finding; where it would keep its models does not matter then.
    folder = service.models or Path("/usr/share/ollama/.ollama/models")
    return _Place(folder, service.user, service.protect_home, service.dynamic_user)


def _mend(barred: Path, place: _Place, lacks: str) -> str:
    if barred == place.folder:
        return f"sudo chown -R {place.user}: {shell(place.folder)}"
    if lacks == "execute" and not barred.is_relative_to("/root"):
        return f"sudo chmod o+x {shell(barred)}"
    return f"sudo install -d -o {place.user} -g {place.user} {shell(place.folder)}"


def _needed(ctx: CheckContext, held: tuple[str, ...]) -> int | None:
    """Bytes that the profile's weights still take; 0 where the server has them, None without such a profile."""
    if not ctx.wants(NAME) or ctx.chosen is None:
        return None
    variant = ctx.chosen.variant
    return 0 if variant.source.repository in held else variant.download_bytes


def _held(ctx: CheckContext) -> tuple[str, ...]:
    """The models that the server has."""
    server = ollama(ctx).server
    try:
        models = Api(server.address.host, server.address.port).held() if server else ()
    except Refusal:
        models = ()
    return tuple(model.name for model in models)


def _free(root: Path, folder: Path) -> int | None:
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(root / place.relative_to("/")).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


READ, WRITE, PASS = 4, 2, 1
HOMES = ("/home", "/root", "/run/user")


@frozen
class User:
    """A user of this machine with all groups."""

    name: str
    uid: int
    gids: frozenset[int]


@frozen
class Barrier:
    """The first folder on the way that keeps the user out. `lacks`: read, write or execute (to enter it)."""

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
            return _lacking(last or Path("/"), root, who, WRITE | PASS, f"{place} does not exist and has to be created")
        if place != folder and (missing := _lacking(place, root, who, PASS)):
            return missing
        if not stat.S_ISDIR(found.st_mode):
            return Barrier(place, "execute", f"{place} is not a folder")
        last = place
    return _lacking(folder, root, who, READ | WRITE | PASS)


def _lacking(place: Path, root: Path, who: User, needed: int, why: str = "") -> Barrier | None:
    real = root / place.relative_to("/")
    found = real.stat()
    lacks = needed & ~_rights(found, who)
    # An access control list may give what the mode does not.
    if not lacks or _has_list(real):
        return None
    word = "execute" if lacks & PASS else "write" if lacks & WRITE else "read"
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
    owner = user_name(found.st_uid) or found.st_uid
    try:
        return f"{owner} {grp.getgrgid(found.st_gid).gr_name}"
    except KeyError:
        return f"{owner} {found.st_gid}"
