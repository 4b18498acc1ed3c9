"""What had to be changed so that an engine starts here: one JSON line each, for the next start to begin with.

An entry holds for the same GPUs, engine, version and profile as they were. What was changed for want of memory holds
for the same overrides only, and until there is clearly more memory; flags and environment hold for every overrides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mscli.catalog.profile import Profile
from mscli.instances.json_values import to_json
from mscli.lifecycle import journal
from mscli.lifecycle.snapshot import Snapshot
from mscli.paths import Places
from mscli.planning.adjustment import NOTHING, Adjustment
from mscli.planning.plan import Overrides

# So much more memory than then, and what was too much then may fit now.
_MORE = 1.05
_MEMORY_FLAGS = ("gpu-memory-utilization", "max-num-seqs", "max-num-batched-tokens", "enforce-eager")


@dataclass(frozen=True)
class Circumstances:
    """Where a change is known to help. `gpus`: the names of all GPUs that can be planned on, () on the CPU.

    `contents`: a digest of the profile, which is another one after each edit. `room_bytes`: what was free on these
    GPUs together; on the CPU all of the RAM, since what is free there changes by the second.
    """

    gpus: tuple[str, ...]
    engine: str
    version: str | None
    profile: str
    contents: str
    overrides: Overrides
    room_bytes: int


@dataclass(frozen=True)
class Remembered:
    """What was changed, and where it led to a good start."""

    where: Circumstances
    adjustment: Adjustment


def circumstances(profile: Profile, snapshot: Snapshot, overrides: Overrides) -> Circumstances:
    """The circumstances of a start of `profile` on the machine seen."""
    devices = snapshot.inventory.devices if profile.device == "gpu" else ()
    room = sum(device.free_bytes or 0 for device in devices) if devices else snapshot.inventory.host.ram_total_bytes
    contents = json.dumps(to_json(replace(profile, path=profile.path.parent)), sort_keys=True)
    return Circumstances(
        gpus=tuple(sorted(device.name for device in devices)),
        engine=profile.engine,
        version=snapshot.versions.get(profile.engine),
        profile=profile.name,
        contents=hashlib.sha256(contents.encode()).hexdigest()[:16],
        overrides=overrides,
        room_bytes=room,
    )


def recall(now: Circumstances, places: Places) -> Adjustment:
    """What the last good start in these circumstances needed; NOTHING where nothing is known."""
    alike = [entry for entry in load(places) if _fixed(entry.where) == _fixed(now)]
    same = [entry for entry in alike if entry.where.overrides == now.overrides]
    if same and now.room_bytes <= same[-1].where.room_bytes * _MORE:
        return same[-1].adjustment
    return _for_all_overrides(alike[-1].adjustment) if alike else NOTHING


def load(places: Places) -> tuple[Remembered, ...]:
    """The entries in order of time; one that cannot be read is passed over: the next start finds out anew."""
    return journal.load(places.healed, Remembered)


def store(places: Places, fresh: Sequence[Remembered]) -> None:
    """Add entries at the end. Raises OSError when the state folder cannot be written."""
    journal.store(places.healed, fresh)


def _fixed(where: Circumstances) -> tuple[object, ...]:
    return (where.gpus, where.engine, where.version, where.profile, where.contents)


def _for_all_overrides(found: Adjustment) -> Adjustment:
    """Without what was changed for want of memory."""
    kept = {key: value for key, value in found.options.items() if key not in _MEMORY_FLAGS}
    return Adjustment(options=kept, env=found.env)
