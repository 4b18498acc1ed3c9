"""Faults in the user's own profiles that have one remedy: it is written into the file, and nothing else is changed."""

from __future__ import annotations

import difflib
import shlex
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mscli.doctor.checks.context import CheckContext
from mscli.doctor.repair.fix import Fix, ManualStep, Repairs
from mscli.doctor.repair.profile_remedies import Machine, Preview, remedies
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.lifecycle.pinned import catalogue

_ROUNDS = 20


@frozen
class _Mended:
    """A profile's text as it would be written. `notes`: what was changed; `fault`: what is wrong with it even then."""

    text: str
    notes: tuple[str, ...]
    fault: MscliError | None


def broken_profiles(ctx: CheckContext) -> Repairs:
    """A fix for each profile of the user's that can be mended; a manual step for what only its author can decide."""
    files = tuple(_files(ctx.places.profiles))
    if not files:
        return [], []
    try:
        machine = Machine(ctx, catalogue(ctx.places))
    except MscliError as fault:
        return [], [ManualStep("profile", f"{fault.message}. {fault.hint}")]
    fixes: list[Fix] = []
    repairs: list[ManualStep] = []
    for path in files:
        try:
            text = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as fault:
            repairs.append(_repair(path, f"cannot read {path}: {fault}"))
            continue
        mended = _mend(path, text, machine)
        if mended.fault is not None:
            repairs.append(_repair(path, _still_wrong(mended)))
        elif mended.notes:
            fixes.append(_fix(path, text, mended))
    return fixes, repairs


def _files(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    yield from (path for path in entries if path.suffix == ".yaml" and not path.name.startswith(".") and path.is_file())


def _mend(path: Path, text: str, machine: Machine) -> _Mended:
    """Apply one remedy after another, reading the text anew each time, until none is left."""
    notes: list[str] = []
    preview = Preview(path, text, machine)
    for _ in range(_ROUNDS):
        remedy = next(remedies(preview, machine), None)
        if remedy is None:
            break
        notes.append(remedy.note)
        preview = Preview(path, remedy.text, machine)
    return _Mended(preview.text, tuple(notes), preview.fault)


def _fix(path: Path, text: str, mended: _Mended) -> Fix:
    kept = _backup(path)
    return Fix(
        id=f"profile:{path.stem}",
        area="profile",
        what=f"fix profile {path.name}: {'; '.join(mended.notes)}",
        touches=(str(path), str(kept)),
        apply=lambda _: _write(path, text, mended.text),
        shows=_diff(path, text, mended.text),
        finding="profile.file",
    )


def _diff(path: Path, before: str, after: str) -> tuple[str, ...]:
    unified = partial(difflib.unified_diff, fromfile=path.name, tofile=path.name, lineterm="", n=1)
    return tuple(unified(before.splitlines(), after.splitlines()))


def _write(path: Path, before: str, after: str) -> str:
    """Put the new text in place, whole or not at all, and keep the old one beside it."""
    place = path.resolve()  # where the profile is a link, its target is what the user edits
    if place.read_bytes() != before.encode():
        raise MscliError(Code.FILE, f"{path} changed meanwhile", "Run mscli doctor --fix again.")
    kept = _backup(path)
    mode = place.stat().st_mode & 0o777
    with kept.open("xb") as handle:
        handle.write(before.encode())
    kept.chmod(mode)
    fresh = place.with_name(f".{place.name}.new")
    fresh.write_bytes(after.encode())
    fresh.chmod(mode)
    fresh.replace(place)
    return f"written; backup: {kept}"


def _backup(path: Path) -> Path:
    """A name of today's that is still free."""
    plain = path.with_name(f"{path.name}.bak-{time.strftime('%Y-%m-%d')}")
    numbered = (plain.with_name(f"{plain.name}-{number}") for number in range(2, 10_000))
    return next(name for name in (plain, *numbered) if not name.exists())


def _still_wrong(mended: _Mended) -> str:
    assert mended.fault is not None
    if not mended.notes:
        return mended.fault.message
    return f"{mended.fault.message}; not changed (only a part can be fixed: {'; '.join(mended.notes)})"


def _repair(path: Path, why: str) -> ManualStep:
    return ManualStep("profile", why, f"mscli profiles validate {shlex.quote(str(path))}")
