"""From a spawned process to a server that is shown to work: `arrive` waits, has the model loaded, and checks the GPU.

A start that fails is ended whole, and its cause is read from what it logged.
"""

from __future__ import annotations

import contextlib
import time

from mscli.engines import engine as contract
from mscli.engines.engine import Hosted, Observed, Talkative
from mscli.engines.table import engine as engine_named
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.instances.fetching import FetchNote
from mscli.instances.records import Record, Records, seen
from mscli.instances.state import UNLOADED, probe
from mscli.inventory.ports import addresses
from mscli.lifecycle.launch import Launch, Started, loopback
from mscli.lifecycle.learning import Eta
from mscli.lifecycle.port import describe_owner
from mscli.lifecycle.progress import Download, Listener, Patience, stopped_meanwhile
from mscli.lifecycle.shutdown import end_group, release
from mscli.lifecycle.waiting import Wait, is_fatal_line, wait_ready
from mscli.planning.request import too_short

_POLL_S = 0.02
_EVIDENCE_LINES = 12
_LOG_DELAY_S = 0.3
_GATEWAY_S = 30.0
_WHOLE = 0.99  # a share of the model on the GPU that rounding cannot explain counts as fallen to the CPU


@frozen
class Arrived:
    """A server that answers. `engine_seconds`: from the spawn until healthy, None for an adopted server."""

    engine_seconds: float | None
    observed: Observed
    warnings: tuple[str, ...]


def arrive(
    launch: Launch, started: Started, patience: Patience, listener: Listener, records: Records, eta: Eta
) -> Arrived:
    """Wait until the server answers, have the model loaded, and prove that it sits where it was planned.

    Whatever fails, nothing of the start is left but its log. Raises START_FAILED or START_TIMEOUT with the cause. A
    KeyboardInterrupt leaves an engine that loads by itself running.
    """
    ended = _wait(launch, started, patience, listener, eta) if started.child else None
    if ended and ended.outcome != "ready":
        taken_by = describe_owner(started.record.port) if ended.outcome == "taken" else None
        _give_up(launch, started.record, records)
        raise _port_taken(launch, started.record, taken_by) if taken_by else _failed(launch, started, ended)
    observed = _load(launch, started, listener, records, eta)
    _wait_gateway(started.record)
    if started.record.request.require_gpu:
        _require_gpu(launch, started.record, observed, records)
    records.mark_ready(started.record.name, started.record.mark)
    eta.ready()
    listener.stage(contract.READY, started.record.base_url)
    return Arrived(ended.seconds if ended else None, observed, _warnings(launch, started.record, observed))


def _wait_gateway(record: Record) -> None:
    """Until the gateway knows that the model is loaded: a moment after who had it loaded. Waits at most _GATEWAY_S."""
    deadline = time.monotonic() + _GATEWAY_S
    while record.gateway and probe(record.host, record.port, record.health_path).status != 200:
        if time.monotonic() > deadline:
            return  # it answers 503 then, and says why in its log
        time.sleep(_POLL_S)


def _wait(launch: Launch, started: Started, patience: Patience, listener: Listener, eta: Eta) -> Wait:
    record, stage = started.record, contract.STARTING
    assert started.child is not None
    assert record.identity is not None
    engine = launch.engine
    talkative = engine if isinstance(engine, Talkative) else None

    def heard(announced: str, line: str) -> None:
        nonlocal stage
        listener.log_line(line)
        step = talkative.step(line) if talkative else None
        if step or (announced and announced != stage):
            stage = announced or stage
            text = step or f"{engine.name} is {announced}"
            eta.mark(text)
            listener.stage(stage, text)

    # A server that holds many models gets ours only after it answers, and its gateway waits for that.
    early = isinstance(engine, Hosted)
    address = record.engine_address if early else (record.host, record.port)
    path = engine.health_path if early else record.health_path
    return wait_ready(
        started.child,
        record.identity,
        record.mark,
        engine,
        address,
        started.tail,
        patience,
        heard,
        record.contained,
        path,
        (lambda _: False) if early else is_fatal_line,  # a server that holds many models lives on without a GPU
    )


def _load(launch: Launch, started: Started, listener: Listener, records: Records, eta: Eta) -> Observed:
    """What the engine took; a server that holds many models is first made to fetch and load ours."""
    if not isinstance(launch.engine, Hosted):
        return _observe(launch, started)
    record, decision = started.record, launch.decision
    text = f"{decision.model.title}, {decision.variant.name}"
    eta.mark(text)
    listener.stage(contract.WEIGHTS if launch.adopted else contract.LOADING, text)
    loaded = False
    try:
        if launch.adopted:
            _may_fetch(launch, record, launch.engine)
        with FetchNote(records, record.name, decision.plan.profile, launch.engine.name) as note:
            observed = launch.engine.prepare(
                record.engine_address,
                decision.plan,
                decision.profile,
                decision.model,
                record.alias,
                Download(listener, note, lambda: stopped_meanwhile(record), eta),
            )
        loaded = True
    except MscliError as fault:
        _keep_words(fault, record)
        raise
    finally:
        if not loaded:  # also after Ctrl-C: a server without its model serves nobody
            _give_up(launch, record, records)
    return observed


def _keep_words(fault: MscliError, record: Record) -> None:
    """Add to the instance's log what its server answered: the server itself logs none of it."""
    if words := fault.details.get("evidence"):
        answered = " ".join(" ".join(map(str, words)).split()) if isinstance(words, list) else str(words)
        with contextlib.suppress(OSError), record.log.open("a") as log:
            log.write(f"mscli: the server answered: {answered}\n")


def load_again(record: Record, records: Records, listener: Listener) -> bool:
    """Have the server of an instance load its model again, where it is in memory no more. Blocks for the load.

    False where the server has no such model: an `up` was killed before it had made it, or somebody removed it. Raises
    START_FAILED with the server's words.
    """
    known = engine_named(record.plan.engine)
    if isinstance(known, Hosted) and seen(record, records).state == UNLOADED:
        listener.stage(contract.LOADING, f"loading {record.alias} again")
        return known.load(record.engine_address, record.alias)
    return True


def _may_fetch(launch: Launch, record: Record, engine: Hosted) -> None:
    """Raise if the model is not on the server and must not be fetched, or the user does not want it fetched."""
    from mscli.lifecycle.server_weights import may_fetch

    variant = launch.decision.variant
    asked = launch.offline or launch.agree is not None
    if asked and variant.source.repository not in [held.name for held in engine.held((record.host, record.port))]:
        may_fetch(engine, variant, launch.offline, launch.agree)


def _observe(launch: Launch, started: Started) -> Observed:
    """What the engine's log tells, once it is written: it can come a moment after the first healthy answer."""
    deadline = time.monotonic() + _LOG_DELAY_S
    observed = launch.engine.observe(started.log_text())
    while observed.context is None and time.monotonic() < deadline:
        time.sleep(0.01)
        observed = launch.engine.observe(started.log_text())
    return observed


def _give_up(launch: Launch, record: Record, records: Records) -> None:
    """End what is left of this start, and forget it. Raises StoppedMeanwhile where somebody else does that."""
    with records.still(record) as now:
        stopped = now is None or now.stopped_at is not None or records.is_stopping(record.name)
    if stopped:
        raise stopped_meanwhile(record)
    release(launch.engine, record, purge=True)  # what was derived for it alone
    end_group(launch.engine, record)
    with records.still(record) as now:
        if now is not None:
            records.forget(record.name)


def _port_taken(launch: Launch, record: Record, by: str) -> MscliError:
    """The error of a start that was ended because somebody else listens where the engine should."""
    summary = f"port {record.port} was taken by {by} while {launch.engine.name} was starting"
    return MscliError(
        Code.START_FAILED,
        f"{launch.name} did not start: {summary}",
        "Use another one with --port, or leave out --port to use a free one.",
        {"cause": "port", "summary": summary, "evidence": [], "log": str(record.log)},
    )


def _failed(launch: Launch, started: Started, ended: Wait) -> MscliError:
    """The error of a start that did not end ready: the cause by the engine's log, its lines, and the next command."""
    from mscli.diagnosis.causes import facts_of
    from mscli.lifecycle.restarts import cause_of  # with what it imports, only for a failed start

    text = started.log_text()
    facts = facts_of(launch.decision.snapshot.inventory)
    cause = cause_of(text, launch.engine.name, ended.exit_status, started.memory_kills, facts)
    record = started.record
    if cause.code == "unknown" and ended.outcome == "died" and addresses(record.port):
        return _port_taken(launch, record, describe_owner(record.port))  # an engine's last lines can be lost
    seen = {
        "died": f"{launch.engine.name} ended with {_status(ended.exit_status)} after {ended.seconds:.1f} s",
        "failed": f"{launch.engine.name} reported this, did not end, and was stopped after {ended.seconds:.0f} s",
        "stalled": f"{launch.engine.name} stopped responding and was stopped after {ended.seconds:.0f} s",
        "timeout": f"{launch.engine.name} was not ready after {ended.seconds:.0f} s and was stopped",
    }[ended.outcome]
    late = ended.outcome == "timeout"
    what = seen if late and cause.code == "unknown" else f"{cause.summary} ({seen})"
    remedy = cause.remedy or ("Allow more time: --timeout." if late else "")
    return MscliError(
        Code.START_TIMEOUT if late else Code.START_FAILED,
        f"{launch.name} did not start: {what}",
        f"{remedy} Full log: mscli logs {launch.name}".strip(),
        {
            "cause": cause.code,
            "summary": cause.summary,
            "evidence": list(cause.evidence or text.strip().splitlines()[-_EVIDENCE_LINES:]),
            "exit_status": ended.exit_status,
            "log": str(started.record.log),
        },
    )


def _status(exit_status: int | None) -> str:
    if exit_status is None:
        return "an unknown exit status"
    return f"signal {-exit_status}" if exit_status < 0 else f"exit status {exit_status}"


def _require_gpu(launch: Launch, record: Record, observed: Observed, records: Records) -> None:
    """Stop an engine that put on the CPU what was planned on the GPU: it would be slow in silence."""
    fallen = _fallen(launch, observed)
    if fallen is None:
        return
    _give_up(launch, record, records)
    why = f" ({observed.cpu_reason})" if observed.cpu_reason else ""
    raise MscliError(
        Code.START_FAILED,
        f"{record.name} was stopped: {fallen}{why}",
        f"See why: mscli logs {record.name}, and what uses the GPU: mscli gpus. To run it partly on the CPU "
        "anyway: --no-require-gpu",
        {"cause": "cpu_fallback", "log": str(record.log)},
    )


def _fallen(launch: Launch, observed: Observed) -> str | None:
    """In words, what sits on the CPU although the plan has it on the GPU; None if nothing does or nobody tells."""
    plan = launch.decision.plan
    if not plan.devices:
        return None
    placed, share = observed.gpu_layers, observed.gpu_share
    if placed is not None and placed[0] < min(plan.layers_on_gpu, placed[1]):
        return f"only {placed[0]} of {placed[1]} layers are on the GPU instead of the planned {plan.layers_on_gpu}"
    whole = plan.layers_on_gpu > launch.decision.model.architecture.text.layers
    if share == 0 and plan.layers_on_gpu:
        return "the model is not on the GPU, although it was planned there"
    if share is not None and whole and share < _WHOLE:
        return f"only {share:.0%} of the model is on the GPU, but all of it was planned there"
    return None


def _warnings(launch: Launch, record: Record, observed: Observed) -> tuple[str, ...]:
    found = []
    if record.identity and not loopback(record.host):
        found.append(f"{record.host} can be reached from other machines; the API key is in {record.api_key_file}")
        if record.gateway is None and (open_paths := launch.engine.capabilities.unguarded):
            found.append(f"the key does not protect {', '.join(open_paths)}: block them with a reverse proxy")
    if short := too_short(record.plan, launch.decision.model, record.request.overrides):
        found.append(short)
    if not record.request.require_gpu and (fallen := _fallen(launch, observed)):
        found.append(f"{fallen}: it will be slow" + (f" ({observed.cpu_reason})" if observed.cpu_reason else ""))
    if observed.context is not None and observed.context < record.plan.context:
        found.append(
            f"the engine serves a context of {observed.context} tokens instead of the planned {record.plan.context}"
        )
    if (
        record.gateway is None
        and isinstance(launch.engine, Hosted)
        and (told := launch.engine.for_clients(record.sampling))
    ):
        found.append(told)
    return tuple(found)
