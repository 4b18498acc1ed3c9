"""What lies in the hub cache: files that cannot serve, downloads that nobody finishes, and what is missing offline."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from mscli.doctor.checks.check import CheckContext, Finding, Severity, counted, fail, ok, shell, skipped, warn
from mscli.doctor.checks.chosen import Damage, damage, hub_place, local_weights
from mscli.errors import MscliError
from mscli.frozen import frozen
from mscli.planning.plan import gib
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
        yield fail("permissions", found.fault or "", "Change its owner, or set HF_HOME to another folder.")
        return
    damaged = list(damage(hub_place(ctx), variant.source.repository, variant))
    yield from _damaged(fail if not found.whole else warn, damaged, f"mscli pull {name} --verify")
    if damaged:
        return
    if found.fault is not None:
        yield fail("corrupt_weights", found.fault, "Download them again:", command=f"mscli pull {name}")
    elif found.whole:
        checked = "sizes match the hub" if found.listed else "sizes match their headers"
        yield ok(f"weights in {found.where} ({checked})", *found.names)
    else:
        yield ok(f"{gib(found.missing_bytes)} not downloaded yet (`mscli up` or `mscli pull`)")


def _elsewhere(ctx: CheckContext) -> Finding:
    assert ctx.chosen is not None
    if ctx.chosen.variant.source.kind != "package":
        return skipped("weights are kept by the Ollama server")
    try:
        return ok(f"weights come with mscli: {packaged(ctx.chosen.model, ctx.chosen.variant).model}")
    except MscliError as fault:
        return fail("corrupt_weights", fault.message, fault.hint)


def _of_all(ctx: CheckContext) -> Iterator[Finding]:
    place = hub_place(ctx)
    if _closed(place.root):
        yield skipped(f"cannot read {place.root}")
        return
    if not any(place.root.glob("models--*")):
        yield ok(f"no weights in {place.root} yet")
        return
    try:
        models = ctx.catalog.models.values()
    except MscliError as fault:
        yield skipped(f"cannot read the catalog: {fault.message}")
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
        left = counted(len(late), "repository", "repositories")
        yield skipped(f"{left} not checked (out of time; `mscli doctor PROFILE` checks one)")
    elif not damaged:
        yield ok(f"{counted(len(repositories), 'repository', 'repositories')} in {place.root}: file sizes match")


def _damaged(severity: Severity, damaged: list[Damage], command: str | None) -> Iterator[Finding]:
    for each in damaged[:_MOST]:
        yield severity(
            "corrupt_weights",
            f"{each.path.name} is damaged: {each.what}",
            "Verify and download it again:",
            str(each.path),
            command=command or "mscli pull PROFILE --verify",
        )
    if len(damaged) > _MOST:
        yield severity("corrupt_weights", f"{counted(len(damaged) - _MOST, 'more damaged file')}", "Same as above.")


def _closed(root: Path) -> bool:
    try:
        return root.is_dir() and not os.access(root, os.R_OK | os.X_OK)
    except OSError:  # a folder above it is closed
        return True


@frozen
class _Unfinished:
    """A file of which a part has arrived. `pid`: who fetches it, None when nobody does. `silent_s`: since its last
    byte. `ours`: mscli resumes it; other tools start over and leave it."""

    path: Path
    size_bytes: int
    pid: int | None
    silent_s: float
    ours: bool


def partial(ctx: CheckContext) -> Iterator[Finding]:
    """Unfinished files: those that somebody fetches now, and leftovers of processes that are gone."""
    place = hub_place(ctx)
    if _closed(place.root):
        yield skipped(f"unfinished downloads unknown (cannot read {place.root})")
        return
    if ctx.chosen is not None and ctx.chosen.variant.source.kind == "hub":
        folders = [place.repository(ctx.chosen.variant.source.repository)]
    else:
        folders = sorted(place.root.glob("models--*"))
    found = [each for folder in folders for each in _unfinished(place.root, folder)]
    for each in found[:_MOST]:
        yield _judged(each, ctx)
    if not found:
        yield ok("no unfinished downloads")


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
            f"download of {whose} stalled for {each.silent_s / 60:.0f} min (PID {each.pid})",
            "Stop it and pull again, which resumes (HF_HUB_DISABLE_XET=1 uses plain HTTP):",
            str(each.path),
            command=f"kill {each.pid}",
        )
    if each.pid is not None:
        return ok(f"downloading {whose}: {size} so far (PID {each.pid})", str(each.path))
    if each.silent_s < _FRESH_S:  # another machine that shares the folder shows no lock here
        return ok(f"downloading {whose}: {size} so far (last {_FRESH_S:.0f} s)", str(each.path))
    if each.ours:
        return warn(
            "stalled_download",
            f"unfinished download of {whose}: {size} of a file",
            "Resume it (mscli weights prune deletes it):",
            str(each.path),
            command=f"mscli pull {name}",
        )
    return warn(
        "stalled_download",
        f"unfinished download of {whose} by another tool: {size} (not resumable)",
        "Remove it, unless another machine that shares this folder is downloading:",
        str(each.path),
        command=f"rm {shell(each.path)}",
    )


def offline(ctx: CheckContext) -> Iterator[Finding]:
    """Offline mode, and whether all that the profile needs is here."""
    if not offline_by_environment():
        yield ok("offline mode off")
        return
    names = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if ctx.env.get(name)]
    found, said = local_weights(ctx), " and ".join(f"{name}={ctx.env[name]}" for name in names)
    if ctx.chosen is None:
        yield warn("offline", f"{said}: no downloads", "Unset it to pull weights:", command=f"unset {' '.join(names)}")
    elif found is None or found.whole:
        yield ok(f"{said}: nothing to download for {ctx.chosen.profile.name}")
    else:
        yield fail(
            "offline",
            f"{said}: no downloads, but {gib(found.missing_bytes)} missing in {found.where}",
            "Copy them from another machine (mscli pull --to DIR, mscli up --weights DIR), or pull once:",
            command=f"env {' '.join(f'-u {name}' for name in names)} mscli pull {ctx.chosen.profile.name}",
        )
