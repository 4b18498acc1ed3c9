"""Faults in the user's own profiles that have one remedy: it is written into the file, and nothing else is changed.

From what keeps the file from being read (a key's name, a context beyond the model's limit) to what would keep it from
starting here (a flag that this engine's version calls otherwise, a port in use, a context that no free memory holds).
"""

from __future__ import annotations

import difflib
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mscli.catalog.document import Document, read_document
from mscli.catalog.gpus import load_gpus
from mscli.catalog.load import Catalog, load_profile_file
from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.catalog.schema import CONTEXT, NEEDS, PROFILE
from mscli.catalog.types import Table
from mscli.doctor.checks.check import CheckContext
from mscli.doctor.checks.ports import port_owner
from mscli.doctor.repair.fix import Fix, ManualStep, Repairs
from mscli.errors import Code, MscliError
from mscli.frozen import field, frozen, replace
from mscli.instances.records import running
from mscli.inventory.inventory import Device, Inventory
from mscli.lifecycle import port as ports
from mscli.lifecycle.healing.flag_renames import renamed
from mscli.lifecycle.launch import FIRST_PORT
from mscli.lifecycle.pinned import catalogue
from mscli.lifecycle.snapshot import installed, load_observations
from mscli.paths import shipped_profiles
from mscli.planning.known import Known
from mscli.planning.make import make
from mscli.planning.plan import NoFit

_SECTIONS: Mapping[str, Table] = {"": PROFILE, "context": CONTEXT, "needs": NEEDS}
# How alike a key must be to the valid one, and no other as much, to be taken for it.
_ALIKE = 0.7
_SHORTER = "--ctx "


@frozen
class Remedy:
    """The whole text with one thing fixed. `note`: what, one phrase."""

    text: str
    note: str


@frozen
class Machine:
    """What remedies are judged by, each looked at when it is first needed. `ports`: those given to profiles so far."""

    ctx: CheckContext
    catalog: Catalog
    ports: set[int] = field(default_factory=set)
    _versions: dict[str, str | None] = field(default_factory=dict)

    def version(self, engine: str) -> str | None:
        """The version of an engine that is installed here, None where it is not known."""
        if engine not in self._versions:
            self._versions[engine] = installed(engine)
        return self._versions[engine]

    @cached_property
    def emptied(self) -> Inventory:
        """This machine as it is when nothing else uses its GPUs."""
        seen = self.ctx.inventory
        reserved = {gpu.index: gpu.memory_reserved_bytes or 0 for gpu in seen.gpus}
        return replace(seen, devices=tuple(_emptied(device, reserved.get(device.gpu, 0)) for device in seen.devices))


class Preview:
    """A profile's text, read: its `profile`, or the `fault` that keeps it from being one."""

    def __init__(self, path: Path, text: str, machine: Machine) -> None:
        self.path, self.text = path, text
        self.profile: Profile | None = None
        self.fault: MscliError | None = None
        self.document: Document | None = None
        with TemporaryDirectory(prefix="mscli-profile-") as folder:
            place = Path(folder) / path.name  # the name of the file is the profile's
            place.write_bytes(text.encode())
            try:
                self.document = read_document(place)
                self.profile = load_profile_file(place, machine.catalog)
            except MscliError as fault:
                fault.message = fault.message.replace(str(place), str(path))
                self.fault = fault

    def line(self, *key: str) -> int:
        """The line of a key, from 1."""
        return self.document.line(key) if self.document else 0

    def given(self, *key: str) -> Any:
        """The value that the file itself gives a key; None where it gives none."""
        node = self.document.root if self.document else None
        for name in key:
            node = node.value.get(name) if node and isinstance(node.value, Mapping) else None
        return node.value if node else None


def remedies(preview: Preview, machine: Machine) -> Iterator[Remedy]:
    """What could be fixed, the first things first; every one for the text as it is now."""
    found = _of_file(preview, machine) if preview.profile is None else _of_profile(preview, preview.profile, machine)
    return (Remedy(text, note) for text, note in found if text is not None and text != preview.text)


Step = tuple[str | None, str]


def _of_file(preview: Preview, machine: Machine) -> Iterator[Step]:
    """Remedies of the faults that the catalogue names."""
    faults = preview.fault.details.get("faults") if preview.fault else None
    for fault in faults if isinstance(faults, list) else ():
        key, line, message = str(fault["key"] or ""), int(fault["line"] or 0), str(fault["message"])
        if message.startswith("unknown key"):
            yield from _misspelt(preview, key, line)
        elif key.startswith("options.-"):
            name = key.removeprefix("options.")
            text = rename_key(preview.text, line, name, name.lstrip("-"))
            yield text, f"remove the dashes of option {name.lstrip('-')} (line {line})"
        elif key.startswith("context."):
            yield from _too_long(preview, key.removeprefix("context."), line, machine)


def _misspelt(preview: Preview, key: str, line: int) -> Iterator[Step]:
    """A key that is like one valid key, and like no other."""
    section, _, name = key.rpartition(".")
    if (table := _SECTIONS.get(section)) is None:
        return
    near = difflib.get_close_matches(name, [entry.name for entry in table.keys], n=2, cutoff=_ALIKE)
    if len(near) == 1:
        yield rename_key(preview.text, line, name, near[0]), f"rename key {name} to {near[0]} (line {line})"


def _too_long(preview: Preview, name: str, line: int, machine: Machine) -> Iterator[Step]:
    """A context beyond what the model was made for, or beyond the profile's own cap."""
    model = machine.catalog.models.get(str(preview.given("model")))
    value = preview.given("context", name)
    if not isinstance(model, Model) or type(value) is not int:
        return
    cap = preview.given("context", "cap")
    most = cap if type(cap) is int and cap <= model.context_limit else model.context_limit
    if name != "cap" and cap is None:
        most = model.context_recommended
    if name == "floor" and value <= model.context_limit and cap is not None:
        return  # floor and cap contradict each other: which of the two is meant is the author's to say
    if value > most:
        why = f"limit of {model.name}: {model.context_limit}" if most != cap else f"context.cap is {cap}"
        yield (
            set_value(preview.text, line, name, most),
            f"lower context.{name} from {value} to {most} ({why}; line {line})",
        )


def _of_profile(preview: Preview, profile: Profile, machine: Machine) -> Iterator[Step]:
    """Remedies of a file that can be read."""
    yield from _renamed(preview, profile, machine)
    yield from _taken_port(preview, profile, machine)
    yield from _too_large(preview, profile, machine)


def _renamed(preview: Preview, profile: Profile, machine: Machine) -> Iterator[Step]:
    if not profile.options:
        return
    version = machine.version(profile.engine)
    for old, new in renamed(profile.engine, version, profile.options).items():
        if new not in profile.options:
            line = preview.line("options", old)
            known = f"{profile.engine} {version or ''}".rstrip()
            yield rename_key(preview.text, line, old, new), f"rename option {old} to {new} ({known}; line {line})"


def _taken_port(preview: Preview, profile: Profile, machine: Machine) -> Iterator[Step]:
    """A port that somebody else listens on. One that an instance of ours uses is no fault: it is what it is for."""
    port = profile.port
    if (
        port is None
        or port in machine.ports
        or any(each.port == port and running(each) for each in machine.ctx.records)
    ):
        return
    others = {other.port for other in machine.catalog.profiles.values() if other.port is not None}
    try:
        if ports.free(profile.host, port):
            return
        first = port + 1 if port >= 1024 else FIRST_PORT
        free = ports.choose(profile.host, first, others | machine.ports)
    except OSError:  # the host is no address of this machine: another fault, with other remedies
        return
    if free is not None:
        machine.ports.add(free)
        who = port_owner(machine.ctx, port).words if ports.listening(port) else "the system (ports below 1024)"
        line = preview.line("port")
        yield (
            set_value(preview.text, line, "port", free),
            f"change port {port} to {free} ({port} in use by {who}; line {line})",
        )


def _too_large(preview: Preview, profile: Profile, machine: Machine) -> Iterator[Step]:
    """A least context that this machine could not hold even with its GPUs empty.

    Only the floor keeps a profile from starting: below a target or a cap the planner takes what fits by itself.
    """
    floor = preview.given("context", "floor")
    if type(floor) is not int or profile.device != "gpu" or not machine.emptied.devices:
        return
    model = machine.catalog.models[profile.model]
    version = machine.version(profile.engine)
    known = Known(
        machine.emptied, (), load_gpus(shipped_profiles()), {profile.engine: version} if version else {},
        load_observations(machine.ctx.places),
    )  # fmt: skip
    outcome = make(profile, model, known)
    nearest = outcome.nearest if isinstance(outcome, NoFit) else None
    if nearest and nearest.startswith(_SHORTER) and (fits := int(nearest.removeprefix(_SHORTER))) < floor:
        line = preview.line("context", "floor")
        note = f"lower context.floor from {floor} to {fits} (most that fits this machine's GPUs; line {line})"
        yield set_value(preview.text, line, "floor", fits), note


def _emptied(device: Device, reserved_bytes: int) -> Device:
    if device.total_bytes is None or device.mig:
        return device
    return replace(device, free_bytes=device.total_bytes - reserved_bytes)


def rename_key(text: str, line: int, old: str, new: str) -> str | None:
    """`text` with the key `old` on `line` (from 1) called `new`."""
    pattern = rf"(?P<before>(?:^|[\s{{,])(?P<quote>['\"]?)){re.escape(old)}(?P<after>(?P=quote)\s*:(?:\s|$))"
    return _on_line(text, line, pattern, new)


def set_value(text: str, line: int, key: str, value: int) -> str | None:
    """`text` with the number that `key` on `line` (from 1) holds set to `value`."""
    pattern = (
        rf"(?P<before>(?:^|[\s{{,])(?P<quote>['\"]?){re.escape(key)}(?P=quote)\s*:\s+)[0-9][0-9_]*(?P<after>[\s,}}]|$)"
    )
    return _on_line(text, line, pattern, str(value))


def _on_line(text: str, line: int, pattern: str, put: str) -> str | None:
    lines = text.split("\n")  # YAML's own lines, as long as no other line end is in use; a carriage return stays
    if not 1 <= line <= len(lines):
        return None
    body, hash_, comment = _comment(lines[line - 1])
    found = list(re.finditer(pattern, body))
    if len(found) != 1:
        return None
    start, end = found[0].end("before"), found[0].start("after")
    lines[line - 1] = body[:start] + put + body[end:] + hash_ + comment
    return "\n".join(lines)


def _comment(line: str) -> tuple[str, str, str]:
    """The line's part before a comment, and the comment. A # inside quotes counts as one: then nothing is changed
    where it should be, and the change is refused."""
    found = re.search(r"(?:^|\s)#", line)
    return (
        (line, "", "")
        if found is None
        else (line[: found.start()], line[found.start() : found.end()], line[found.end() :])
    )


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
