"""What lies in the hub cache: files that cannot serve, downloads that nobody finishes, and what is missing offline."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mscli.doctor.checks.check import Finding, Severity, fail, ok, skipped, warn
from mscli.doctor.checks.chosen import Damage, damage, hub_place, local_weights
from mscli.doctor.checks.context import CheckContext
from mscli.errors import MscliError
from mscli.planning.figures import gib
from mscli.weights.cache import holder
from mscli.weights.ensure import packaged
from mscli.weights.hub import offline_by_environment

_BUDGET_S = 1.5
_SILENT_S = 120.0
_FRESH_S = 30.0
_MOST = 8


def files(ctx: CheckContext) -> Iterator[Finding]:
    """Files of the profile, or of every repository of the catalogue that is here, which cannot serve."""
    if ctx.chosen is not None:
        yield from _of_profile(ctx)
    else:
        yield from _of_all(ctx)


def _of_profile(ctx: CheckContext) -> Iterator[Finding]:
    assert ctx.chosen is not None
    chosen, found = ctx.chosen, local_weights(ctx)
    name, variant = chosen.profile.name, chosen.variant
    if found is None:
        yield _elsewhere(ctx)
        return
    if found.cause == "permissions":
        yield fail("permissions", found.fault or "", "Give it to this user, or set HF_HOME to a folder of its own.")
        return
    damaged = list(damage(hub_place(ctx), variant.source.repository, variant))
    yield from _damaged(fail if not found.whole else warn, damaged, f"mscli pull {name} --verify")
    if damaged:
        return
    if found.fault is not None:
        yield fail("corrupt_weights", found.fault, "Fetch them again.", command=f"mscli pull {name}")
    elif found.whole:
        checked = "their sizes are as the hub states" if found.listed else "they are as long as they say"
        yield ok(f"the weights are in {found.where}: {checked}", *found.names)
    else:
        yield ok(f"{gib(found.missing_bytes)} of the weights are not here yet: `mscli up` or `mscli pull` fetches them")


def _elsewhere(ctx: CheckContext) -> Finding:
    assert ctx.chosen is not None
    if ctx.chosen.variant.source.kind != "package":
        return skipped("the Ollama server keeps these weights itself")
    try:
        return ok(f"the weights come with mscli: {packaged(ctx.chosen.model, ctx.chosen.variant).model}")
    except MscliError as fault:
        return fail("corrupt_weights", fault.message, fault.hint)


def _of_all(ctx: CheckContext) -> Iterator[Finding]:
    place = hub_place(ctx)
    if _closed(place.root):
        yield skipped(f"what lies in {place.root}: it may not be looked into")
        return
    if not any(place.root.glob("models--*")):
        yield ok(f"no weights are in {place.root} yet")
        return
    try:
        models = ctx.catalog.models.values()
    except MscliError as fault:
        yield skipped(f"which repositories are wanted is not known: {fault.message}")
        return
    repositories = {
        variant.source.repository
        for model in models
        for variant in model.variants.values()
        if variant.source.kind == "hub" and place.repository(variant.source.repository).is_dir()
    }
    until = time.monotonic() + _BUDGET_S
    damaged: list[Damage] = []
    late: list[str] = []
    for repository in sorted(repositories):
        if time.monotonic() > until:
            late.append(repository)
            continue
        damaged += damage(place, repository)
    yield from _damaged(warn, damaged, None)
    if late:
        yield skipped(f"{len(late)} repositories were not looked into for time: `mscli doctor PROFILE` looks at one")
    elif not damaged:
        yield ok(f"files of {len(repositories)} repositories in {place.root} are whole, by their sizes")


def _damaged(severity: Severity, damaged: list[Damage], command: str | None) -> Iterator[Finding]:
    for each in damaged[:_MOST]:
        yield severity(
            "corrupt_weights",
            f"{each.path.name} cannot serve: {each.what}",
            "Have it hashed and fetched again.",
            str(each.path),
            command=command or "mscli pull PROFILE --verify",
        )
    if len(damaged) > _MOST:
        yield severity("corrupt_weights", f"{len(damaged) - _MOST} more files cannot serve", "See those above.")


def _closed(root: Path) -> bool:
    try:
        return root.is_dir() and not os.access(root, os.R_OK | os.X_OK)
    except OSError:  # a folder above it is closed
        return True


@dataclass(frozen=True)
class _Unfinished:
    """A file of which a part has arrived. `pid`: who fetches it, None when nobody does. `silent_s`: since its last
    byte. `ours`: mscli goes on from it; other tools begin anew and leave it lying."""

    path: Path
    size_bytes: int
    pid: int | None
    silent_s: float
    ours: bool


def partial(ctx: CheckContext) -> Iterator[Finding]:
    """Unfinished files: those that somebody fetches now, and leftovers of processes that are gone."""
    place = hub_place(ctx)
    if _closed(place.root):
        yield skipped(f"what is unfinished: {place.root} may not be looked into")
        return
    if ctx.chosen is not None and ctx.chosen.variant.source.kind == "hub":
        folders = [place.repository(ctx.chosen.variant.source.repository)]
    else:
        folders = sorted(place.root.glob("models--*"))
    found = [each for folder in folders for each in _unfinished(place.root, folder)]
    for each in found[:_MOST]:
        yield _judged(each, ctx)
    if not found:
        yield ok("no unfinished download")


def _unfinished(root: Path, folder: Path) -> Iterator[_Unfinished]:
    try:
        paths = sorted(path for path in (folder / "blobs").iterdir() if path.name.endswith(".incomplete"))
    except OSError:  # none, or it may not be looked into
        return
    for path in paths:
        try:
            seen = path.stat()
        except OSError:  # it has just been finished
            continue
        lock = root / ".locks" / folder.name / f"{path.name.split('.')[0]}.lock"
        silent_s = time.time() - seen.st_mtime
        yield _Unfinished(path, seen.st_blocks * 512, holder(lock), silent_s, path.name.endswith(".mscli.incomplete"))


def _judged(each: _Unfinished, ctx: CheckContext) -> Finding:
    whose = each.path.parent.parent.name.removeprefix("models--").replace("--", "/")
    size, name = gib(each.size_bytes), ctx.chosen.profile.name if ctx.chosen else "PROFILE"
    if each.pid is not None and each.silent_s > _SILENT_S:
        return warn(
            "stalled_download",
            f"process {each.pid} fetches {whose}, but no byte has come for {each.silent_s / 60:.0f} minutes",
            "Stop it and start it again: mscli goes on where it stopped. HF_HUB_DISABLE_XET=1 takes the older way.",
            str(each.path),
            command=f"kill {each.pid}",
        )
    if each.pid is not None:
        return ok(f"process {each.pid} is fetching {whose}: {size} of a file are here", str(each.path))
    if each.silent_s < _FRESH_S:  # another machine that shares the folder shows no lock here
        return ok(f"a file of {whose} has grown within the last {_FRESH_S:.0f} s: {size} are here", str(each.path))
    if each.ours:
        return warn(
            "stalled_download",
            f"a download of {whose} was not finished: {size} of a file are here, and nobody goes on with it",
            "`mscli pull` goes on after these bytes; `mscli weights prune` frees them.",
            str(each.path),
            command=f"mscli pull {name}",
        )
    return warn(
        "stalled_download",
        f"another tool left {size} of an unfinished file of {whose}: recent ones begin anew",
        "Remove it if no download runs on another machine that shares this folder.",
        str(each.path),
        command=f"rm {each.path}",
    )


def offline(ctx: CheckContext) -> Iterator[Finding]:
    """Offline mode, and whether all that the profile needs is here."""
    if not offline_by_environment():
        yield ok("weights may be fetched: offline mode is off")
        return
    names = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if ctx.env.get(name)]
    found, said = local_weights(ctx), " and ".join(f"{name}={ctx.env[name]}" for name in names)
    if ctx.chosen is None:
        yield warn("offline", f"{said}: what is not here cannot be fetched", "Unset it where weights are pulled.")
    elif found is None or found.whole:
        yield ok(f"{said}, and nothing of {ctx.chosen.profile.name} has to be fetched from the hub")
    else:
        yield fail(
            "offline",
            f"{said} forbids fetching, and {gib(found.missing_bytes)} of the weights are not in {found.where}",
            "Unset it for one pull, or bring them by disk: `mscli pull --to DIR` there, `mscli up --weights DIR` here.",
            command=f"env {' '.join(f'-u {name}' for name in names)} mscli pull {ctx.chosen.profile.name}",
        )
