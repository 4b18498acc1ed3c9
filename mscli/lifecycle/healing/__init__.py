"""`mscli up` that heals itself: a start that failed is diagnosed, its plan changed, and tried again.

At most three further tries, never the same change twice, and never against what the user typed. What ended well is
remembered for these GPUs and this version, and the next start begins with it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mscli.catalog.profile import Profile
from mscli.engines import engine as contract
from mscli.errors import Code, MscliError
from mscli.frozen import replace
from mscli.instances.records import Record
from mscli.inventory.detect import detect
from mscli.lifecycle import up as starting
from mscli.lifecycle.decision import Decision, chosen
from mscli.lifecycle.launch import StartFailure
from mscli.lifecycle.learning import Circumstances, Heal, Remembered, circumstances, noted, recall, remember, remembered
from mscli.lifecycle.preparation import Ask
from mscli.lifecycle.progress import Listener as StartListener
from mscli.lifecycle.progress import Patience
from mscli.lifecycle.snapshot import Snapshot
from mscli.lifecycle.up import DryRun, Up
from mscli.paths import Places, hub_cache
from mscli.planning.adjustment import NOTHING, Adjustment
from mscli.planning.plan import Choice, Overrides

if TYPE_CHECKING:
    from mscli.lifecycle.healing.remedies import Change, Failure

TRIES = 3
# What a longer wait would not have helped.
_HANGS = ("p2p", "nccl")


class Listener(StartListener, Protocol):
    """Also hears what is changed between two tries."""

    def heal(self, heal: Heal, number: int, most: int) -> None:
        """After a try that failed: what is changed for try `number` of at most `most` further ones."""


def up(ask: Ask, places: Places, listener: Listener) -> Up:
    """Start what was asked for as lifecycle.up does; a start that failed is changed and tried again.

    Blocks for up to four starts. Raises the error of the last try, with all that was changed in details["healed"].
    """
    attempts = _Attempts(ask, places, listener)
    while True:
        try:
            done = starting.up(attempts.ask, places, listener)
        except MscliError as fault:
            attempts.heal(fault)
        else:
            return attempts.done(done)


def up_as_planned(ask: Ask, places: Places, listener: Listener) -> Up:
    """lifecycle.up without healing (--no-heal): what is remembered is not used, and a good start forgets it."""
    seen: list[Circumstances] = []

    def look(profile: Profile, snapshot: Snapshot) -> Adjustment:
        seen.append(circumstances(profile, snapshot, ask.request.overrides))
        return NOTHING

    done = starting.up(replace(ask, adjust=look), places, listener)
    if done.observed is not None and seen and recall(seen[-1], remembered(places)).adjustment != NOTHING:
        forgotten = Remembered(seen[-1], NOTHING)
        done = replace(done, warnings=(*done.warnings, *noted(lambda: remember(places, forgotten))))
    return done


def dry_run(ask: Ask, places: Places) -> DryRun:
    """What `up` would do now: lifecycle.up.dry_run, with what is remembered."""

    def as_remembered(profile: Profile, snapshot: Snapshot) -> Adjustment:
        entry = recall(circumstances(profile, snapshot, ask.request.overrides), remembered(places))
        return NOTHING if entry.due else entry.adjustment

    return starting.dry_run(replace(ask, adjust=as_remembered), places)


def restart(record: Record, places: Places, patience: Patience, listener: Listener, heal: bool = True) -> Up:
    """Stop an instance and start it again, with what worked. Blocks as `up` does."""
    return starting.restart(record, places, patience, listener, up if heal else up_as_planned)


class _Attempts:
    """The tries of one `up`: what to ask next, and what has been changed so far.

    `state`: what the profile is changed by, None before the first plan. `where`: the circumstances of `profile`,
    unchanged, made when they are asked for. `memory`: what is remembered of earlier starts, None where nothing ever
    was; `recalled`: it is begun with. `last`: the error of the last try that got as far as the engine.
    """

    def __init__(self, first: Ask, places: Places, listener: Listener) -> None:
        self.first, self.places, self.listener = first, places, listener
        self.healed: list[Heal] = []
        self.state: Adjustment | None = None
        self.profile: str | None = None
        self.where: Callable[[], Circumstances] | None = None
        self.choice: Choice | None = None
        self.memory: Remembered | None = None
        self.recalled = False
        self.last: MscliError | None = None

    @property
    def ask(self) -> Ask:
        """What to ask for now."""
        return replace(self.first, adjust=self.adjust, stay=self.choice)

    @property
    def overrides(self) -> Overrides:
        """What the user typed."""
        return self.first.request.overrides

    def adjust(self, profile: Profile, snapshot: Snapshot) -> Adjustment:
        """What is remembered at the first plan, then what was found out."""
        if self.where is None or self.profile != profile.name:
            self.where = cache(partial(circumstances, profile, snapshot, self.overrides))
            self.profile, self.state, self.memory = profile.name, None, None
        if self.state is None:
            if known := remembered(self.places):
                self.memory = recall(self.where(), known)
            self.state = self._begun_with(self.memory.adjustment, self.memory.due) if self.memory else NOTHING
        return self.state

    def _begun_with(self, known: Adjustment, due: bool) -> Adjustment:
        words = ", ".join(known.words)
        self.recalled = known != NOTHING and not due
        if self.recalled:
            self.listener.stage(contract.PLAN, f"with earlier adjustments: {words} (--no-heal turns them off)")
            return known
        if due:
            self.listener.stage(contract.PLAN, f"trying without earlier adjustments: {words}")
        return NOTHING

    @property
    def said(self) -> tuple[Heal, ...]:
        """What the profile was changed by, for people: what was begun with, then what was changed now."""
        begun_with = (self.memory.said(),) if self.memory and self.recalled else ()
        return (*begun_with, *self.healed)

    def heal(self, fault: MscliError) -> None:
        """Change what the next try asks for. Raises the fault, with what was tried, where nothing more can be done."""
        if fault.code is Code.NO_FIT and self.recalled and not self.healed:
            self.state, self.recalled = NOTHING, False  # what worked then is no plan for now
            return
        known = self._failure(fault)
        change = self._change(fault, known) if len(self.healed) < TRIES else None
        if change is None:
            no_plan = fault.code is Code.NO_FIT and self.last is not None
            raise self._given_up(self.last if no_plan and self.last else fault, known)
        self.last = fault if known else None
        heal = Heal(_cause(fault), change.what, str(fault.details.get("summary") or fault.message))
        self.healed.append(heal)
        self.state = (self.state or NOTHING).then(change.adjustment)
        self.choice = self.choice or (known.decision.choice if known else None)
        self.listener.heal(heal, len(self.healed), TRIES)

    def done(self, up: Up) -> Up:
        """What the last try did, with all that was changed for it; what worked is kept for later starts."""
        return replace(up, healed=self.said, warnings=(*up.warnings, *noted(lambda: self.remember(up))))

    def remember(self, done: Up) -> None:
        """Keep what a start that ended ready was changed by. Raises OSError when the state cannot be written."""
        if done.observed is None or self.where is None or self.state is None:
            return
        known = self.memory
        if known and self.recalled and self.state == known.adjustment:
            remember(self.places, replace(known, starts=known.starts + 1))
        elif (known and known.due) or (self.healed and self.state != (known.adjustment if known else NOTHING)):
            remember(self.places, Remembered(self.where(), self.state, tuple(self.healed)))

    def _failure(self, fault: MscliError) -> Failure | None:
        from mscli.lifecycle.healing.remedies import Failure  # only a failed start needs its patterns

        if not isinstance(fault, StartFailure):
            return None
        return Failure(
            cause=_cause(fault),
            log=fault.log,
            decision=fault.decision,
            overrides=self.overrides,
            port=self.first.request.port,
            number=len(self.healed) + 1,
            lost_bytes=_lost_bytes(fault.decision),
            adopted=fault.adopted,
        )

    def _change(self, fault: MscliError, known: Failure | None) -> Change | None:
        """The first change that may help."""
        from mscli.lifecycle.healing.remedies import Change, remedies
        from mscli.lifecycle.restarts import STRAY_KILL

        if known is None:
            return self._wrong_profile() if fault.code is Code.NO_FIT and not self.healed else None
        if _cause(fault) == STRAY_KILL:
            again = Change("the same start again")
            return again if all(heal.change != again.what for heal in self.healed) else None
        if self.memory and self.memory.due and not self.healed:
            return Change(", ".join(self.memory.adjustment.words), self.memory.adjustment)
        if fault.code is Code.START_TIMEOUT and _cause(fault) not in _HANGS:
            return None
        return next(remedies(replace(known, cause=_cause(fault))), None)

    def _wrong_profile(self) -> Change | None:
        """What the planner refuses of a profile, whatever the machine."""
        from mscli.lifecycle.healing.remedies import wrong_kv_types

        request = self.first.request
        if request.profile is None and request.file is None:
            return None
        found = chosen(request.profile, Path(request.file) if request.file else None, self.places)
        return wrong_kv_types(found.profile, self.overrides)

    def _given_up(self, fault: MscliError, known: Failure | None) -> MscliError:
        """The fault with what was tried, and what was not because the user had asked for the opposite."""
        from mscli.lifecycle.healing.remedies import remedies

        details, message, hint = dict(fault.details), fault.message, fault.hint
        if self.healed:
            details["healed"] = [vars(heal) for heal in self.healed]
            message += f". Tried before: {'; then '.join(heal.change for heal in self.healed)}"
        free = replace(known, cause=_cause(fault), overrides=Overrides(), port=None) if known else None
        kept = next(remedies(free), None) if free and len(self.healed) < TRIES else None
        if not self.healed and kept is None:
            return fault
        if kept:
            hint = f"{hint} Not tried, because your options rule it out: {kept.what}.".strip()
        return MscliError(fault.code, message, hint, details)


def _cause(fault: MscliError) -> str:
    return str(fault.details.get("cause", "unknown"))


def _lost_bytes(decision: Decision) -> int:
    """By how much less is free on the planned GPU that lost most; 0 where there is none."""
    if not decision.plan.devices:
        return 0
    now = {device.uuid: device.free_bytes for device in detect(hub_cache()).devices}
    before = {device.uuid: device.free_bytes for device in decision.snapshot.inventory.devices}
    lost = [(before.get(uuid) or 0) - (now.get(uuid) or 0) for uuid in decision.plan.devices]
    return max(0, *lost)
