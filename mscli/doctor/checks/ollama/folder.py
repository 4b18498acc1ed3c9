"""The folder of Ollama's models: whether the server's own user may use it, and how much room there is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mscli.doctor.checks.check import Seen, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.ollama.permissions import barrier, hidden_home, user
from mscli.doctor.checks.ollama.view import view, wanted
from mscli.engines.ollama.api import Api, Refusal

GB = 10**9
# One of the models in four bits, with what a pull needs beside it; and what every server needs to work at all.
_ONE_MODEL, _LEAST = 16 * GB, 1 * GB


@dataclass(frozen=True)
class _Place:
    folder: Path
    user: str
    protect_home: str
    dynamic_user: bool


def folder_access(ctx: CheckContext) -> Iterator[Seen]:
    """Every folder on the way to the models, with the eyes of the user that runs the server."""
    place = _place(ctx)
    if place is None:
        yield skipped("no server and no service whose folder could be told")
        return
    if hidden_home(place.folder, place.protect_home):
        yield fail(
            "permissions",
            f"{place.folder} lies in a home, which systemd hides from the service (ProtectHome={place.protect_home})",
            "Move the models out of the homes (OLLAMA_MODELS=/srv/ollama), or set ProtectHome=no.",
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
            f"user {place.user}, under which the Ollama service runs, does not exist",
            "Make it, or install Ollama anew.",
            command=f"sudo useradd -r -s /bin/false -U -m -d /usr/share/ollama {place.user}",
        )
        return
    try:
        found = barrier(place.folder, who, ctx.root)
    except OSError as fault:
        yield skipped(f"{place.folder} cannot be looked at by this user ({fault.strerror})")
        return
    if found is None:
        yield ok(f"user {who.name} may read and write {place.folder}")
        return
    yield fail(
        "permissions",
        f"user {who.name}, who runs Ollama, may not {found.lacks} {found.place}, on the way to {place.folder}",
        "Give that user the folder, or move the models where it may (OLLAMA_MODELS in the service's environment).",
        found.seen,
        command=_mend(found.place, place, found.lacks),
    )


def folder_room(ctx: CheckContext) -> Iterator[Seen]:
    """Room where the server, not this shell, puts what it pulls."""
    place = _place(ctx)
    free = _free(ctx.root, place.folder) if place else None
    if place is None or free is None:
        yield skipped("where the server keeps its models cannot be told from here")
        return
    held = _held(ctx)
    needed = _needed(ctx, held)
    seen = f"{free / GB:.1f} GB free at {place.folder}, where the Ollama server keeps its models"
    remedy = "Remove models (`ollama list`, `ollama rm NAME`), or move OLLAMA_MODELS to a larger disk."
    if free < (needed if needed is not None else _LEAST):
        more = f"; the profile's weights take {needed / GB:.1f} GB" if needed else ""
        yield fail("disk_full", seen + more, remedy, command=f"df -h {place.folder}")
    elif not held and needed is None and free < _ONE_MODEL:
        yield warn("disk_full", f"{seen}: less than one model of 24B in four bits", remedy)
    else:
        yield ok(seen)


def _place(ctx: CheckContext) -> _Place | None:
    """The folder of the server that answers; else of the service that would."""
    seen = view(ctx)
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
        return f"sudo chown -R {place.user}: {place.folder}"
    if lacks == "pass" and not barred.is_relative_to("/root"):
        return f"sudo chmod o+x {barred}"
    return f"sudo install -d -o {place.user} -g {place.user} {place.folder}"


def _needed(ctx: CheckContext, held: tuple[str, ...]) -> int | None:
    """Bytes that the profile's weights still take; 0 where the server has them, None without such a profile."""
    if not wanted(ctx) or ctx.chosen is None:
        return None
    variant = ctx.chosen.variant
    return 0 if variant.source.repository in held else variant.download_bytes


def _held(ctx: CheckContext) -> tuple[str, ...]:
    """The models that the server has."""
    server = view(ctx).server
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
