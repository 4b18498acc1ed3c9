"""What a good start teaches the next one: the memory that it took, what had to be changed so that it came up, and when
the next one will probably be ready.

What was changed holds for the same GPUs, engine, version and profile. A change made for want of memory holds for the
same overrides only, and until there is clearly more memory; flags and environment hold whatever the overrides.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from mscli.catalog.profile import Profile
from mscli.engines.engine import Observed
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace
from mscli.instances.json_values import append_lines, load_lines, to_json
from mscli.inventory.detect import detect
from mscli.inventory.inventory import Inventory
from mscli.lifecycle.decision import Decision
from mscli.lifecycle.snapshot import Snapshot
from mscli.paths import Places, hub_cache
from mscli.planning.adjustment import NOTHING, Adjustment
from mscli.planning.known import observe
from mscli.planning.plan import Overrides


@frozen
class Kind:
    """What makes two starts alike: they take about as long. `gpus`: the cards' names, one for each."""

    engine: str
    version: str | None
    profile: str
    variant: str
    gpus: tuple[str, ...]


@frozen
class Mark:
    """Something that a start told, and how many seconds after its begin."""

    text: str
    seconds: float


@frozen
class Past:
    """A good start: what it told and when, and after how many seconds it was ready."""

    kind: Kind
    seconds: float
    marks: tuple[Mark, ...]


@frozen
class Forecast:
    """When a start will be ready if it goes as the last one. `ready_at`: by time.monotonic(); `last_s`: what the last
    one took."""

    ready_at: float
    last_s: float

    def left_s(self) -> float | None:
        """Seconds to go, None once it takes longer than the last one: then nothing is known."""
        left = self.ready_at - time.monotonic()
        return left if left > 0 else None


@runtime_checkable
class Foreseeing(Protocol):
    """A listener that shows how long a start will still take."""

    def forecast(self, forecast: Forecast | None) -> None:
        """Takes what is known from now on; None: nothing (any more)."""


class Eta:
    """One start, from its begin. `spoilt`: it waited for what the next one will not, and teaches nothing."""

    def __init__(self, kind: Kind, past: Past | None, listener: object) -> None:
        self._kind, self._past = kind, past
        self._listener = listener if isinstance(listener, Foreseeing) else None
        self._begun = time.monotonic()
        self._marks: dict[str, float] = {}
        self._seconds: float | None = None
        self.spoilt = False
        self._tell(0.0)

    def mark(self, text: str) -> None:
        """Something was told; where the last start told the same, the forecast goes by when that was."""
        self._marks.setdefault(text, time.monotonic() - self._begun)
        then = next((mark.seconds for mark in self._past.marks if mark.text == text), None) if self._past else None
        if then is not None:
            self._tell(then)

    def ready(self) -> None:
        """It is ready now: nothing is to be foreseen any more."""
        self._seconds = time.monotonic() - self._begun
        if self._listener:
            self._listener.forecast(None)

    def keep(self, places: Places) -> None:
        """Keep how it went for the next start. Raises OSError when the state cannot be written."""
        if self._seconds is not None and not self.spoilt:
            marks = tuple(Mark(text, round(at, 2)) for text, at in self._marks.items())
            append_lines(places.starts, [Past(self._kind, round(self._seconds, 2), marks)])

    def _tell(self, then: float) -> None:
        """Tell the listener that this start is now where the last one was after `then` seconds."""
        if self._listener and self._past:
            self._listener.forecast(Forecast(time.monotonic() + self._past.seconds - then, self._past.seconds))


def eta(decision: Decision, places: Places, listener: object) -> Eta:
    """The expected times of the start that begins now."""
    plan = decision.plan
    kind = Kind(
        engine=plan.engine,
        version=decision.snapshot.versions.get(plan.engine),
        profile=plan.profile,
        variant=plan.variant,
        gpus=tuple(memory.name for memory in plan.memory),
    )
    alike = [past for past in load_lines(places.starts, Past) if past.kind == kind]
    return Eta(kind, alike[-1] if alike else None, listener)


# So many good starts with a change, and one is tried without it.
TRIED_AGAIN_AFTER = 10
# So much more memory than then, and what was too much then may fit now.
_MORE = 1.05
# Keys that profiles did not have at first: left at their defaults, they change no digest that is kept on a disk.
_ADDED = ("drop_images", "instead")
_MEMORY_FLAGS = ("gpu-memory-utilization", "max-num-seqs", "max-num-batched-tokens", "enforce-eager")


def taken_bytes(decision: Decision) -> Mapping[int, int]:
    """GPU index -> how much less is free on it now than when the plan was made; empty without planned GPUs.

    A GPU whose free memory cannot be read, then or now, is left out.
    """
    if not decision.plan.devices:
        return {}
    before, now = _free(decision.snapshot.inventory), _free(detect(hub_cache()))
    index = dict(zip(decision.plan.devices, decision.plan.gpus, strict=True))
    return {index[uuid]: before[uuid] - now[uuid] for uuid in decision.plan.devices if uuid in before and uuid in now}


def learn(decision: Decision, taken: Mapping[int, int], observed: Observed, places: Places) -> None:
    """Keep what was taken beside what was planned, GPU by GPU. A GPU that lost nothing teaches nothing.

    The engine's log tells the KV cache of all GPUs together, so it is only used where there is one.
    """
    plan = decision.plan
    version = decision.snapshot.versions.get(plan.engine)
    kv_bytes = observed.kv_bytes if len(plan.memory) == 1 else None
    fresh = [
        observe(plan, memory, version, taken[memory.gpu], kv_bytes)
        for memory in plan.memory
        if taken.get(memory.gpu, 0) > 0
    ]
    append_lines(places.observations, fresh)


def _free(inventory: Inventory) -> dict[str, int]:
    return {device.uuid: device.free_bytes for device in inventory.devices if device.free_bytes is not None}


@frozen
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


@frozen
class Heal:
    """One change after a try that failed. `cause`: a code of the closed list; `change` and `why` in words."""

    cause: str
    change: str
    why: str


@frozen
class Remembered:
    """What was changed, why, and where it led to a good start. `starts`: how many good ones have begun with it."""

    where: Circumstances
    adjustment: Adjustment
    healed: tuple[Heal, ...] = ()
    starts: int = 0

    @property
    def due(self) -> bool:
        """True once it is to be tried without: what was in the way then may be gone."""
        return self.starts >= TRIED_AGAIN_AFTER

    def said(self) -> Heal:
        """What a start that begins with it says of it."""
        last = self.healed[-1] if self.healed else Heal("unknown", "", "an earlier start needed it")
        return Heal(last.cause, ", ".join(self.adjustment.words), f"remembered: {last.why}")


def circumstances(profile: Profile, snapshot: Snapshot, overrides: Overrides) -> Circumstances:
    """The circumstances of a start of `profile` on the machine seen."""
    import hashlib  # 3 ms, for what nobody asks as long as no start had to be changed

    devices = snapshot.inventory.devices if profile.device == "gpu" else ()
    room = sum(device.free_bytes or 0 for device in devices) if devices else snapshot.inventory.host.ram_total_bytes
    told = to_json(replace(profile, path=profile.path.parent))
    contents = json.dumps({key: told[key] for key in told if told[key] or key not in _ADDED}, sort_keys=True)
    return Circumstances(
        gpus=tuple(sorted(device.name for device in devices)),
        engine=profile.engine,
        version=snapshot.versions.get(profile.engine),
        profile=profile.name,
        contents=hashlib.sha256(contents.encode()).hexdigest()[:16],
        overrides=overrides,
        room_bytes=room,
    )


def recall(now: Circumstances, known: Sequence[Remembered]) -> Remembered:
    """What the last good start in these circumstances needed; an adjustment of NOTHING where nothing is `known`."""
    alike = [entry for entry in known if _fixed(entry.where) == _fixed(now)]
    same = [entry for entry in alike if entry.where.overrides == now.overrides]
    if same and now.room_bytes <= same[-1].where.room_bytes * _MORE:
        return same[-1]
    if not alike:
        return Remembered(now, NOTHING)
    return replace(alike[-1], where=now, adjustment=_for_all_overrides(alike[-1].adjustment))


def remembered(places: Places) -> tuple[Remembered, ...]:
    """The entries in order of time; one that cannot be read is passed over: the next start finds out anew."""
    return load_lines(places.healed, Remembered)


def noted(write: Callable[[], None]) -> tuple[str, ...]:
    """Keep what is known of a start that is ready with `write`; a warning in words where it cannot be written."""
    try:
        write()
    except OSError as fault:
        return (f"cannot save what this start took: {fault.filename}: {fault.strerror}",)
    except MscliError as fault:
        if fault.code not in (Code.FILE, Code.DISK_FULL):
            raise
        return (f"cannot save what this start took: {fault.message}",)
    return ()


def remember(places: Places, fresh: Remembered) -> None:
    """Add an entry at the end. Raises OSError when the state folder cannot be written."""
    append_lines(places.healed, [fresh])


def _fixed(where: Circumstances) -> tuple[object, ...]:
    return (where.gpus, where.engine, where.version, where.profile, where.contents)


def _for_all_overrides(found: Adjustment) -> Adjustment:
    """Without what was changed for want of memory."""
    kept = {key: value for key, value in found.options.items() if key not in _MEMORY_FLAGS}
    return Adjustment(options=kept, env=found.env)
