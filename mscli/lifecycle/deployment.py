"""`mscli up` as a sequence of values: request -> decision -> weights -> launch -> process -> ready -> observed.

Nothing here prints. Progress goes to a listener; a fault is an MscliError that names the cause and what to type next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from mscli.engines import engine as contract
from mscli.engines.engine import Command, Observed, WeightFiles
from mscli.engines.table import engine as engine_named
from mscli.errors import Code, MscliError
from mscli.lifecycle import launch as launching
from mscli.lifecycle.decision import Decision, decide
from mscli.lifecycle.endpoint import Patience, Wait, wait_ready
from mscli.lifecycle.instance import READY, STARTING, Instance, look, running
from mscli.lifecycle.launch import Launch, Started
from mscli.lifecycle.process import halt
from mscli.lifecycle.records import Record, Records, Request, api_key, check_name
from mscli.lifecycle.shutdown import stop
from mscli.paths import Places
from mscli.weights.ensure import ensure, wanted
from mscli.weights.progress import Listener as WeightsListener

_EVIDENCE_LINES = 12
_LARGE_BYTES = 10**9


class Listener(WeightsListener, Protocol):
    """Hears how a start goes on: each stage as it is reached, what a pull does, and the engine's log lines."""

    def stage(self, stage: str, text: str) -> None:
        """`stage` is one of the contract's stages; `text` says what is being done."""

    def log_line(self, line: str) -> None:
        """A line that the engine logged."""


@dataclass(frozen=True)
class Ask:
    """One `mscli up`. `name` None: named after the profile. `api_key` None: none, or one made up where it is needed.

    `agree`: asked with the number of bytes before a large download; False ends the start.
    """

    request: Request
    name: str | None = None
    patience: Patience = Patience()
    wait: bool = True
    replace: bool = False
    api_key: str | None = None
    offline: bool = False
    agree: Callable[[int], bool] | None = None


@dataclass(frozen=True)
class Up:
    """What `up` did. `already`: it ran before, nothing was started. `observed`: what the engine says it took.

    `seconds`: all of it; `engine_seconds`: from the spawn until healthy. `warnings`: for people, in words.
    """

    record: Record
    instance: Instance
    decision: Decision | None
    already: bool
    seconds: float
    engine_seconds: float | None
    observed: Observed | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class DryRun:
    """What `up` would do. `command` None: it cannot be told here, `notes` say why (engine missing, say)."""

    decision: Decision
    name: str
    command: Command | None
    notes: tuple[str, ...]


def up(ask: Ask, places: Places, listener: Listener) -> Up:
    """Start what was asked for, or report it if it runs already.

    Blocks for planning, the pull and (unless `ask.wait` is False) until the engine is ready, at most
    `ask.patience.timeout_s`. Raises MscliError; a KeyboardInterrupt while waiting leaves the server running.
    """
    begun = time.monotonic()
    records = Records(places)
    if record := _same(ask, records):
        return Up(record, look(record, records), None, True, time.monotonic() - begun, None, None, ())
    started = None
    while started is None:
        launch = _prepare(ask, places, listener)
        if ask.replace and (old := records.get(launch.name)) and running(old):
            listener.stage(contract.STARTING, f"stopping the {launch.name} that runs now")
            stop(old, records)
        with records.lock():
            _refuse_other(launch.name, ask, records)
            if not _overtaken(launch, records):
                started = launching.start(launch, records)
    listener.stage(contract.STARTING, f"{launch.engine.name} on port {started.record.port}")
    ended = _wait(launch, started, ask, listener, records) if ask.wait else None
    return _result(launch, started, ended, time.monotonic() - begun, records)


def dry_run(ask: Ask, places: Places) -> DryRun:
    """What `up` would do now: the plan, and the exact command where the engine and the weights are here.

    Starts, fetches and writes nothing.
    """
    decision, name = _decide(ask, places)
    try:
        engine = engine_named(decision.plan.engine)
        installation = engine.locate()
        weights = _expected_weights(decision)
        launch = Launch(name, ask.request, decision, engine, installation, weights, ask.api_key)
        where = launching.serving(name, ask.request, decision, Records(places), ask.api_key is not None)
        return DryRun(decision, name, launching.command(launch, where), ())
    except MscliError as fault:
        return DryRun(decision, name, None, (fault.message,))


def restart(record: Record, places: Places, patience: Patience, listener: Listener) -> Up:
    """Stop an instance if it runs and start it again as it was asked for, on the same port. Blocks as `up` does."""
    records = Records(places)
    key = api_key(record)
    if running(record):
        listener.stage(contract.STARTING, f"stopping {record.name}")
        stop(record, records)
    pinned = replace(record.request, port=record.port)
    if pinned.file is None:
        pinned = replace(pinned, profile=record.plan.profile)
    done = up(Ask(pinned, record.name, patience, api_key=key), places, listener)
    with records.lock():  # only this start was pinned: the request stays what the user asked for
        kept = replace(done.record, request=record.request)
        records.save(kept)
    return replace(done, record=kept)


def _prepare(ask: Ask, places: Places, listener: Listener) -> Launch:
    """Everything up to the lock: decide, find the engine, have the weights here."""
    listener.stage(contract.PLAN, "reading this machine and planning")
    decision, name = _decide(ask, places)
    _refuse_other(name, ask, Records(places))
    engine = engine_named(decision.plan.engine)
    installation = engine.locate()
    listener.stage(contract.WEIGHTS, f"{decision.model.title}, {decision.variant.name}")
    _ask_first(ask, decision)
    weights = ensure(decision.model, decision.variant, listener, offline=ask.offline)
    return Launch(name, ask.request, decision, engine, installation, weights, ask.api_key)


def _ask_first(ask: Ask, decision: Decision) -> None:
    """Let the user refuse a large download before its first byte."""
    if ask.agree is None or decision.variant.source.kind != "hub":
        return
    missing = wanted(decision.model, decision.variant, offline=ask.offline).missing_bytes
    if missing > _LARGE_BYTES and not ask.agree(missing):
        raise MscliError(Code.INTERRUPTED, "nothing was fetched", "Another profile may need less: mscli profiles")


def _overtaken(launch: Launch, records: Records) -> bool:
    """True if another instance has taken one of the planned GPUs since the plan was made: then plan again."""
    devices = set(launch.decision.plan.devices)
    return any(
        record.name != launch.name
        and record.mark not in launch.decision.rivals
        and devices & set(record.plan.devices)
        and running(record)
        for record in records.all()[0]
    )


def _decide(ask: Ask, places: Places) -> tuple[Decision, str]:
    name = ask.name or ask.request.profile
    decision = decide(ask.request, places, name if ask.replace else None)
    return decision, check_name(ask.name or decision.profile.name)


def _expected_weights(decision: Decision) -> WeightFiles:
    """The weight files if they are all here. Raises WEIGHTS_MISSING otherwise; fetches nothing."""
    from mscli.weights.progress import Silence

    return ensure(decision.model, decision.variant, Silence(), offline=True)


def _same(ask: Ask, records: Records) -> Record | None:
    """The record of the running instance that this very request started before, if there is one."""
    if ask.replace:
        return None
    for record in _candidates(ask, records):
        alike = replace(ask.request, port=None) == replace(record.request, port=None)
        same = alike and ask.request.port in (None, record.port) and running(record)
        if same and look(record, records).state in (READY, STARTING):
            return record
    return None


def _candidates(ask: Ask, records: Records) -> tuple[Record, ...]:
    name = ask.name or ask.request.profile
    if name is None:
        return tuple(record for record in records.all()[0] if record.request.profile == ask.request.profile)
    record = records.get(check_name(name))
    return (record,) if record else ()


def _refuse_other(name: str, ask: Ask, records: Records) -> None:
    """Raise INSTANCE_EXISTS when something else runs under this name and was not to be replaced."""
    record = records.get(name)
    if record is None or ask.replace or not running(record):
        return
    seen = look(record, records)
    raise MscliError(
        Code.INSTANCE_EXISTS,
        f"an instance {name!r} is there already: profile {seen.profile}, context {seen.context}, port {seen.port}, "
        f"{seen.state}; what was asked for differs from it",
        f"Replace it: add --replace. Or run this one beside it: --name {name}-2. Or stop it first: mscli down {name}",
        {"instance": name, "state": seen.state, "port": seen.port},
    )


def _wait(launch: Launch, started: Started, ask: Ask, listener: Listener, records: Records) -> Wait:
    record = started.record
    stage = contract.STARTING

    def heard(announced: str, line: str) -> None:
        nonlocal stage
        listener.log_line(line)
        if announced and announced != stage:
            stage = announced
            listener.stage(announced, f"{launch.engine.name} is {announced} the model")

    address = (record.host, record.port)
    ended = wait_ready(
        started.child, record.identity, record.mark, launch.engine, address, started.tail, ask.patience, heard
    )
    if ended.outcome == "ready":
        records.mark_ready(record.name)
        listener.stage(contract.READY, record.base_url)
        return ended
    halt(record.identity, record.mark, launch.engine.stop_signals, launch.engine.stop_grace_s)
    records.forget(record.name)
    raise _failed(launch, started, ended)


def _failed(launch: Launch, started: Started, ended: Wait) -> MscliError:
    """The error of a start that did not end ready: the cause by the engine's log, its lines, and the next command."""
    text = started.log_text()
    cause = launch.engine.diagnose(text, ended.exit_status)
    seen = {
        "died": f"{launch.engine.name} ended with {_status(ended.exit_status)} after {ended.seconds:.1f} s",
        "stalled": f"{launch.engine.name} showed no sign of life any more and was stopped after {ended.seconds:.0f} s",
        "timeout": f"{launch.engine.name} was not ready after {ended.seconds:.0f} s and was stopped",
    }[ended.outcome]
    evidence = cause.evidence or tuple(text.strip().splitlines()[-_EVIDENCE_LINES:])
    remedy = cause.remedy or "Try --timeout with more seconds." if ended.outcome == "timeout" else cause.remedy
    return MscliError(
        Code.START_TIMEOUT if ended.outcome == "timeout" else Code.START_FAILED,
        f"{launch.name} did not start: {cause.summary}. {seen[0].upper()}{seen[1:]}.",
        f"{remedy} The whole log: mscli logs {launch.name}".strip(),
        {
            "cause": cause.code,
            "evidence": list(evidence),
            "exit_status": ended.exit_status,
            "log": str(started.record.log),
        },
    )


def _status(exit_status: int | None) -> str:
    if exit_status is None:
        return "an unknown exit status"
    return f"signal {-exit_status}" if exit_status < 0 else f"exit status {exit_status}"


def _result(launch: Launch, started: Started, ended: Wait | None, seconds: float, records: Records) -> Up:
    record = started.record
    observed = launch.engine.observe(started.log_text()) if ended else None
    if observed and record.request.require_gpu:
        _require_gpu(launch, started, observed, records)
    return Up(
        record=record,
        instance=look(record, records),
        decision=launch.decision,
        already=False,
        seconds=seconds,
        engine_seconds=ended.seconds if ended else None,
        observed=observed,
        warnings=_warnings(record, observed),
    )


def _require_gpu(launch: Launch, started: Started, observed: Observed, records: Records) -> None:
    """Stop an engine that put layers on the CPU although they were planned on the GPU: it would be slow in silence."""
    planned, placed = launch.decision.plan.layers_on_gpu, observed.gpu_layers
    if not launch.decision.plan.devices or placed is None or placed[0] >= min(planned, placed[1]):
        return
    record = started.record
    halt(record.identity, record.mark, launch.engine.stop_signals, launch.engine.stop_grace_s)
    records.forget(record.name)
    raise MscliError(
        Code.START_FAILED,
        f"{record.name} was stopped: only {placed[0]} of {placed[1]} layers are on the GPU, {planned} were planned",
        f"See why: mscli logs {record.name}. To run it partly on the CPU all the same: --no-require-gpu",
        {"cause": "cpu_fallback", "gpu_layers": list(placed), "log": str(record.log)},
    )


def _warnings(record: Record, observed: Observed | None) -> tuple[str, ...]:
    found = []
    if not launching.loopback(record.host):
        found.append(f"{record.host} can be reached from other machines; the API key is in {record.api_key_file}")
    if observed and observed.context is not None and observed.context < record.plan.context:
        found.append(f"the engine serves a context of {observed.context} tokens, {record.plan.context} were planned")
    return tuple(found)
