"""Checks of where weights go: it can be written, has room, and the hub's settings and token are as they seem."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from mscli.doctor.checks.check import Check, CheckContext, Finding, Severity, fail, ok, shell, skipped, user_name, warn
from mscli.doctor.checks.chosen import hub_place, local_weights, needs_hub, recommended
from mscli.doctor.checks.weights.files import files, offline, partial
from mscli.errors import MscliError
from mscli.paths import expanded, hub_cache, hub_token_file
from mscli.planning.plan import gib
from mscli.weights.fault import check_room
from mscli.weights.hub import token

_PROBE_BYTES = 4096
# A record, a key and the first lines of a log; engines also compile kernels below TMPDIR.
_SCRATCH_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


def folder(ctx: CheckContext) -> Iterator[Finding]:
    """The hub cache can be written: a file is made there and removed, and so in every folder that a pull writes to."""
    root = hub_place(ctx).root
    fault = written(root, _PROBE_BYTES)
    if fault is not None:
        yield _unwritable(ctx, root, fault)
        return
    closed = [(path, fault) for path in _below(ctx) if (fault := written(path, 0)) is not None]
    for path, fault in closed:
        yield _unwritable(ctx, path, fault)
    if not closed:
        yield ok(f"{root} is writable", *([] if _there(root) else ["not there yet (created by the first pull)"]))


def _below(ctx: CheckContext) -> Iterator[Path]:
    """The folders of the cache that a pull of the profile writes to, or of all repositories; those that are there."""
    place = hub_place(ctx)
    if ctx.chosen is not None:
        repositories = [place.repository(ctx.chosen.variant.source.repository)]
    else:
        repositories = sorted(place.root.glob("models--*"))
    candidates = [place.root / ".locks", *(path / name for path in repositories for name in ("", "blobs", "snapshots"))]
    return (path for path in candidates if _there(path))


def _unwritable(ctx: CheckContext, path: Path, fault: OSError) -> Finding:
    severity = fail if ctx.chosen is None or needs_hub(ctx) else warn
    if fault.errno in _FULL:
        return _full(severity, path, fault)
    nameless = user_name(os.geteuid()) is None
    return severity(
        "container_user" if nameless and ctx.inventory.host.container else "permissions",
        f"{user_name(os.geteuid()) or f'UID {os.geteuid()}'} cannot write to {path}: {fault.strerror}",
        "Change the owner, or set HF_HOME to another folder (cached weights still work):",
        *_on_the_way(path),
        command=f"sudo chown -R {os.geteuid()} {shell(path)}" if _existing(path) == path and _there(path) else None,
    )


def _there(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _full(severity: Severity, path: Path, fault: OSError) -> Finding:
    remedy = "Free space (mscli weights prune), or use a larger disk (HF_HOME, TMPDIR, MSCLI_HOME)."
    return severity("disk_full", f"cannot write to {path}: {fault.strerror}", remedy, _usage(path))


def written(path: Path, size: int) -> OSError | None:
    """Write `size` bytes to a file in the folder `path` (or in the first folder above it that is there), of which
    nothing stays; the error where that fails."""
    try:
        # A file without a name: nothing is left of it where this process is killed. Without a buffer: one that cannot
        # be emptied would fail again at the end.
        with tempfile.TemporaryFile(dir=_existing(path), buffering=0) as probe:
            left = size
            while left:
                left -= os.write(probe.fileno(), bytes(left))
    except OSError as fault:
        return fault
    return None


def _existing(path: Path) -> Path:
    """The folder itself, or the first one above it that is there. One that may not be looked into counts as there."""
    for candidate in (path, *path.parents):
        try:
            candidate.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return candidate
        return candidate
    return Path("/")


def _on_the_way(path: Path) -> Iterator[str]:
    """Owner and mode of the folders that are closed to this user on the way, and of the last one."""
    place = _existing(path)
    for each in (*reversed(place.parents), place):
        try:
            seen = each.stat()
        except OSError:
            return
        if each == place or not os.access(each, os.X_OK):
            yield f"{stat.filemode(seen.st_mode)} {user_name(seen.st_uid) or seen.st_uid} {each}"


def _usage(path: Path) -> str:
    disk = os.statvfs(_existing(path))
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    left = f", {disk.f_favail:,} inodes free" if disk.f_files else ""
    return f"{gib(free)} of {gib(total)} free{left}"


def space(ctx: CheckContext) -> Iterator[Finding]:
    """Room for what a pull fetches, on the file system that receives it."""
    root = hub_place(ctx).root
    if ctx.chosen is not None:
        yield from _profile_space(ctx, root)
        return
    if not os.access(_existing(root), os.X_OK):
        yield skipped(f"free space unknown (cannot read {root})")
        return
    for what, size in _worth_having(ctx):
        try:
            check_room(root, size, what)
        except MscliError as short:
            yield warn("disk_full", short.message, short.hint, _usage(root))
            return
    yield ok(f"{_usage(root)} at {root}")


def _profile_space(ctx: CheckContext, root: Path) -> Iterator[Finding]:
    assert ctx.chosen is not None
    found = local_weights(ctx)
    if found is None:
        kind = ctx.chosen.variant.source.kind
        yield skipped(f"{ctx.chosen.profile.name} uses no weights from Hugging Face ({kind})")
    elif found.cause == "permissions":
        yield skipped(f"free space unknown (cannot read {root})")
    elif found.whole:
        yield ok(f"nothing to download (weights in {found.where})")
    else:
        try:
            check_room(root, found.missing_bytes, ctx.chosen.profile.name)
        except MscliError as short:
            yield fail("disk_full", short.message, short.hint, _usage(root), command="mscli weights prune")
        else:
            yield ok(f"{gib(found.missing_bytes)} to download; {_usage(root)}")


def _worth_having(ctx: CheckContext) -> list[tuple[str, int]]:
    """What a pull would fetch for the smallest profile of the hub, and for the one that this machine would take."""
    try:
        catalog = ctx.catalog
    except MscliError:  # the area `profile` tells of it
        return []
    hub = {
        profile.name: variant.download_bytes
        for profile in catalog.profiles.values()
        if (variant := catalog.model_of(profile)[1]).source.kind == "hub"
    }
    best = recommended(ctx)
    names = (
        [min(hub, key=lambda name: hub[name]), *([best.profile] if best and best.profile in hub else [])] if hub else []
    )
    return [(name, hub[name]) for name in names]


def scratch(ctx: CheckContext) -> Iterator[Finding]:
    """Room for records and logs, and where engines put temporary files: a mebibyte is written and removed."""
    places = {ctx.places.state, Path(ctx.env.get("TMPDIR") or "/tmp")}
    if xet := ctx.env.get("HF_XET_CACHE"):
        places.add(expanded(xet))
    good = []
    for path in sorted(places):
        fault = written(path, _SCRATCH_BYTES)
        if fault is None:
            good.append(str(path))
        elif fault.errno in _FULL:
            yield _full(fail, path, fault)
        else:
            remedy = "Change its owner, or use another folder (MSCLI_HOME, TMPDIR, HF_XET_CACHE)."
            yield fail("permissions", f"cannot write to {path}: {fault.strerror}", remedy, *_on_the_way(path))
    if good:
        yield ok(f"writable: {', '.join(good)}")


_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_XET", "HF_XET_HIGH_PERFORMANCE")
_WORDS = {"1", "ON", "YES", "TRUE", "0", "OFF", "NO", "FALSE", ""}
_LEAST_RAM = 64 * 2**30
_LOOKS_RIGHT = re.compile(r"hf_[A-Za-z0-9]{20,}|hf_oauth_\S+|api_\S+")


def settings(ctx: CheckContext) -> Iterator[Finding]:
    """Each setting that misleads, or that all is as it seems."""
    found = [*_switches(ctx.env), *_folders(ctx.env), *_speed(ctx)]
    yield from found
    if not found:
        set_here = sorted(name for name in ctx.env if name.startswith(("HF_", "TRANSFORMERS_")) and "TOKEN" not in name)
        yield ok(f"HF_* overrides: {', '.join(set_here)}" if set_here else "no HF_* overrides")


def _switches(env: Mapping[str, str]) -> Iterator[Finding]:
    for name in _SWITCHES:
        if env.get(name, "").upper() not in _WORDS:
            remedy = f"Set {name}=1, or unset it."
            yield warn(None, f"{name}={env[name]!r} is not a boolean (treated as no)", remedy)


def _folders(env: Mapping[str, str]) -> Iterator[Finding]:
    place = hub_cache(env)
    for name in ("TRANSFORMERS_CACHE", "HUGGINGFACE_HUB_CACHE", "PYTORCH_TRANSFORMERS_CACHE"):
        other = env.get(name)
        if other and expanded(other) != place:
            yield warn(
                None,
                f"{name}={other}, but weights go to {place} (some programs will download them twice)",
                "Use HF_HOME only:",
                command=f"unset {name}",
            )
    if not place.is_absolute():
        yield warn(None, f"relative cache path {place}", "Set HF_HOME or HF_HUB_CACHE to an absolute path.")


def _speed(ctx: CheckContext) -> Iterator[Finding]:
    env = ctx.env
    if env.get("HF_HUB_ENABLE_HF_TRANSFER", "").upper() in {"1", "ON", "YES", "TRUE"} and not find_spec("hf_transfer"):
        yield warn(
            "python_env",
            "HF_HUB_ENABLE_HF_TRANSFER set, but hf_transfer not installed (older tools refuse to download)",
            "Unset it (replaced by Xet):",
            command="unset HF_HUB_ENABLE_HF_TRANSFER",
        )
    ram = ctx.inventory.host.ram_total_bytes
    if env.get("HF_XET_HIGH_PERFORMANCE", "").upper() in {"1", "ON", "YES", "TRUE"} and ram < _LEAST_RAM:
        yield warn(
            "host_ram",
            f"HF_XET_HIGH_PERFORMANCE needs 64 GiB of RAM for its buffers (this machine: {ram / 2**30:.0f})",
            "Unset it:",
            command="unset HF_XET_HIGH_PERFORMANCE",
        )
    kept = env.get("HF_XET_CHUNK_CACHE_SIZE_BYTES", "")
    if kept and not kept.isdigit():
        remedy = "Use a number of bytes: 10000000000."
        yield warn(None, f"HF_XET_CHUNK_CACHE_SIZE_BYTES={kept!r} is not a number", remedy)


def token_kept(ctx: CheckContext) -> Iterator[Finding]:
    """The token as it lies here; whether the hub knows it is the network's to say. Its text is never shown."""
    path, sent = hub_token_file(ctx.env), token(ctx.env)
    if sent is None:
        yield from _none(path)
        return
    if not ctx.env.get("HF_ENDPOINT") and not _LOOKS_RIGHT.fullmatch(sent.value):
        remedy = "Copy it again from https://huggingface.co/settings/tokens (starts with hf_, no spaces)."
        yield warn("hf_gated", f"{sent.origin} has no valid Hugging Face token", remedy)
    elif sent.origin != str(path) and path.is_file():
        yield ok(f"token in {sent.origin}", f"overrides the one in {path}")
    else:
        yield ok(f"token in {sent.origin}")
    if path.is_file() and path.stat().st_mode & 0o077:
        yield warn(
            None,
            f"other users can read the token in {path}",
            "Make it private:",
            command=f"chmod 600 {shell(path)}",
        )


def _none(path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield ok("no saved Hugging Face token")
        return
    yield warn("hf_gated", f"no readable token in {path}", "Log in again:", command="hf auth login")


CHECKS: tuple[Check, ...] = (
    Check("weights.folder", folder),
    Check("weights.space", space),
    Check("weights.scratch", scratch),
    Check("weights.files", files),
    Check("weights.partial", partial),
    Check("weights.offline", offline),
    Check("weights.settings", settings),
    Check("weights.token", token_kept),
)
