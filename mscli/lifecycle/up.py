"""`mscli up` as a sequence of values: request -> decision -> weights -> launch -> process -> ready -> observed.

Nothing here prints. Progress goes to a listener; a fault is an MscliError that names the cause and what to type next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from mscli.engines import engine as contract
from mscli.engines.engine import Imaged, Observed
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace
from mscli.instances.records import Record, Records, Taken, api_keys, running, seen
from mscli.instances.state import READY, UNLOADED, UNRESPONSIVE, Instance
from mscli.lifecycle import launch as launching
from mscli.lifecycle.decision import Decision
from mscli.lifecycle.launch import Launch, Started, StartFailure
from mscli.lifecycle.learning import Heal, eta, learn, noted, taken_bytes
from mscli.lifecycle.port import kept
from mscli.lifecycle.preparation import (
    Ask,
    agree_on,
    allowed,
    decided,
    find_engine,
    prepare,
    refuse_other,
    said,
    same,
    weights_here,
)
from mscli.lifecycle.preview import ABSENT, Preview, expected_engine
from mscli.lifecycle.progress import Listener, Patience, StoppedMeanwhile, stopped_meanwhile
from mscli.paths import Places
from mscli.planning.request import too_short

ListenerT = TypeVar("ListenerT", bound=Listener)


@frozen
class Up:
    """What `up` did. `already`: it ran before, nothing was started. `observed`: what the engine says it took.

    `taken_bytes`: what NVML says it took, by GPU index. `seconds`: all of it; `engine_seconds`: from the spawn until
    healthy. `warnings`: for people, in words. `healed`: what was changed, in order: what is
    remembered of earlier starts, then after tries that failed.
    """

    record: Record
    instance: Instance
    decision: Decision | None
    already: bool
    seconds: float
    engine_seconds: float | None
    observed: Observed | None
    taken_bytes: Mapping[int, int]
    warnings: tuple[str, ...]
    healed: tuple[Heal, ...] = ()


@frozen
class DryRun:
    """What `up` would do."""

    decision: Decision
    name: str
    preview: Preview


def up(ask: Ask, places: Places, listener: Listener) -> Up:
    """Start what was asked for, or report it if it runs already.

    Blocks for planning, the pull and (unless `ask.wait` is False) until the engine is ready, at most
    `ask.patience.timeout_s`. Raises MscliError, and StartFailure where the engine did not start or refused its flags;
    a KeyboardInterrupt while waiting leaves the server running.
    """
    begun = time.monotonic()
    records = Records(places)
    there = same(ask, records)
    while True:
        if there and (record := _running_already(ask, there, listener, records)):
            return Up(record, seen(record, records), None, True, time.monotonic() - begun, None, None, {}, ())
        found = _start(ask, places, records, listener)
        if not isinstance(found, Record):
            break
        there = found
    launch, started = found
    going = eta(launch.decision, places, listener)
    listener.stage(contract.STARTING, f"{launch.engine.name} on port {started.record.port}")
    from mscli.lifecycle.readiness import arrive

    ask.meanwhile()
    try:
        arrived = arrive(launch, started, ask.patience, listener, records, going) if ask.wait else None
    except StoppedMeanwhile:
        raise
    except MscliError as fault:
        log = started.log_text() or said(fault)
        raise StartFailure.of(fault, launch.decision, log, adopted=launch.adopted is not None) from fault
    taken, record = taken_bytes(launch.decision) if arrived else {}, started.record
    warnings = (*launch.warnings, *(arrived.warnings if arrived else ()))
    if arrived:
        observed = arrived.observed
        record = _with_taken(record, observed, taken)
        warnings += noted(lambda: _keep(record, records))
        warnings += noted(lambda: going.keep(places))
        warnings += noted(lambda: learn(launch.decision, taken, observed, places))
    return Up(
        record=record,
        instance=seen(record, records),
        decision=launch.decision,
        already=False,
        seconds=time.monotonic() - begun,
        engine_seconds=arrived.engine_seconds if arrived else None,
        observed=arrived.observed if arrived else None,
        taken_bytes=taken,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _with_taken(record: Record, observed: Observed, gpu_bytes: Mapping[int, int]) -> Record:
    """The record with what the instance took, for `mscli status`."""
    placed = observed.gpu_layers
    share = observed.gpu_share if placed is None or not placed[1] else placed[0] / placed[1]
    taken = Taken(observed.context, {str(gpu): taken for gpu, taken in gpu_bytes.items()}, share)
    return replace(record, taken=taken)


def _keep(record: Record, records: Records) -> None:
    """Keep what a record has by now of what the instance took. Raises FILE or DISK_FULL."""
    with records.still(record) as now:
        if now is not None:
            records.save(replace(now, taken=record.taken))


def _start(ask: Ask, places: Places, records: Records, listener: Listener) -> tuple[Launch, Started] | Record:
    """Plan and spawn; plans again when another instance takes a planned GPU, or the name, in between.

    The record of an instance where another mscli was faster with the same request.
    """
    while True:
        launch = prepare(ask, places, listener)
        if isinstance(launch, Record):
            return launch
        if ask.replace and (old := records.get(launch.name)) and running(old):
            from mscli.lifecycle.shutdown import stop, survived

            listener.stage("stopping", launch.name)
            if (ended := stop(old, records)).survivors:
                raise survived([ended])
        with records.lock():
            if there := same(ask, records):
                return there
            refuse_other(launch.name, ask, records)
            other = records.get(launch.name)
            if not (other and running(other)) and not _overtaken(launch, records):
                return launch, launching.start(launch, records)


def _running_already(ask: Ask, there: Record, listener: Listener, records: Records) -> Record | None:
    """The record of an instance that runs already and has its model in memory; None where one is to be started."""
    from mscli.lifecycle.readiness import load_again
    from mscli.lifecycle.shutdown import stop

    record = _join(ask, there, listener, records)
    if record and not load_again(record, records, listener):
        stop(record, records)
        return None
    return record


def _join(ask: Ask, there: Record, listener: Listener, records: Records) -> Record | None:
    """The instance that runs already, once it is ready where that is to be waited for; None if it has ended.

    Raises INSTANCE_EXISTS for one that does not answer any more.
    """
    state = seen(there, records).state
    if state == UNRESPONSIVE:
        raise MscliError(
            Code.INSTANCE_EXISTS,
            f"an instance {there.name!r} already exists and does not answer",
            f"Look at it: mscli logs {there.name}. Start it again: mscli restart {there.name}",
            {"instance": there.name, "state": state, "port": there.port},
        )
    if state in (READY, UNLOADED) or not ask.wait:
        return there
    from mscli.lifecycle.waiting import join

    return join(there, ask.patience, listener, records)


def dry_run(ask: Ask, places: Places) -> DryRun:
    """What `up` would do now: the plan, and the exact command where the engine and the weights are here.

    Starts, fetches and writes nothing. Raises what `up` raises before it starts, fetches or installs anything.
    """
    notes, agreed = list[str](), agree_on(ask, places)
    if isinstance(agreed, Record):
        notes.append(f"{agreed.name} is already running")
        ask = replace(ask, name=agreed.name, replace=True)
        agreed = decided(ask, places)
    decision, name = agreed
    launch = find_engine(ask, decision, name)
    if launch.adopted:
        return DryRun(decision, name, Preview(None, (*notes, f"uses the running server: {launch.adopted.owner}")))
    plan, model = decision.plan, decision.model
    found = launch.installation or expected_engine(launch.engine, notes, decision.profile.device, plan.engine_state)
    launch = replace(launch, installation=found, weights=weights_here(ask, launch, notes))
    where = launching.serving(launch, Records(places))
    shown = Preview(allowed(launch, where), tuple(notes), found.kind != ABSENT)
    if isinstance(launch.engine, Imaged) and shown.installed:
        launch.engine.check_host(plan, decision.profile, found, ask.offline)
    if short := too_short(plan, model, ask.request.overrides):
        shown = replace(shown, notes=(*shown.notes, short))
    if where.gateway:
        key = " and asks for a key" if where.api_key_file else ""
        shown = replace(shown, notes=(*shown.notes, f"mscli's gateway listens on {where.host}:{where.port}{key}"))
    return DryRun(decision, name, shown)


def restart(
    record: Record,
    places: Places,
    patience: Patience,
    listener: ListenerT,
    start: Callable[[Ask, Places, ListenerT], Up] = up,
) -> Up:
    """Stop an instance if it runs and `start` it again as it was asked for, on the same port. Blocks as `up` does.

    What can be refused is refused before it is stopped: a broken profile, a plan that does not fit, missing weights.
    """
    pinned = replace(record.request, port=record.port)
    if pinned.file is None:
        pinned = replace(pinned, profile=record.plan.profile)
    ask = Ask(pinned, record.name, patience, replace=True, api_key=api_keys(record))
    with kept(record.port):
        done = start(ask, places, listener)
    records = Records(places)
    with records.still(done.record) as now:  # only this start was pinned: the request stays what the user asked for
        if now is None:
            raise stopped_meanwhile(done.record)
        again = replace(now, request=record.request)
        unsaved = noted(lambda: records.save(again))
    return replace(done, record=again, warnings=(*done.warnings, *unsaved))


def _overtaken(launch: Launch, records: Records) -> bool:
    """True if another instance has taken one of the planned GPUs since the plan was made: then plan again."""
    devices = set(launch.decision.plan.devices)
    return any(
        record.name != launch.name
        and record.mark not in launch.decision.snapshot.rivals
        and devices & set(record.plan.devices)
        and running(record)
        for record in records.all()[0]
    )
