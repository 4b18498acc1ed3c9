"""From a spawned process to a server that is shown to work: `arrive` waits, has the model loaded, and checks the GPU.

`wait_ready` races the health check against the process's death, a stall and the deadline. A start that fails is ended
whole, and its cause is read from what it logged.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mscli.engines import engine as contract
from mscli.engines.engine import Engine, Hosted, Observed, Talkative
from mscli.engines.environment import Contained
from mscli.engines.table import engine as engine_named
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.instances.container import pids, publishes
from mscli.instances.fetching import FetchNote
from mscli.instances.log import LogTail
from mscli.instances.process import Identity, alive, cpu_ticks, group_lazily, members, wait_death
from mscli.instances.records import Record, Records, seen
from mscli.instances.state import CRASHED, STARTING, STOPPED, UNLOADED, probe
from mscli.inventory.ports import addresses, listens
from mscli.lifecycle.eta import Eta
from mscli.lifecycle.launch import Launch, Started, loopback
from mscli.lifecycle.port import describe_owner
from mscli.lifecycle.server_weights import may_fetch
from mscli.lifecycle.shutdown import end_group, release
from mscli.planning.request import too_short
from mscli.weights.progress import DONE, Note, Progress
from mscli.weights.progress import Listener as WeightsListener

_POLL_S = 0.02
_SOON_S, _SHARE = 0.004, 0.03  # a start of a fraction of a second is looked at more often, each time that share later
_JOIN_POLL_S = 0.1
_LOOK_AT_GROUP_S = 1.0
_EVIDENCE_LINES = 12
_LOG_DELAY_S = 0.3
_GATEWAY_S = 30.0
_LAST_WORDS_S = 3.0  # in which an engine that reported a fatal error may end by itself, or prove to be well
_TROUBLE = re.compile(r"rror|atal|ailed|panicked|fallen off|OutOfMemory|NCCL|cuInit|exiting", re.IGNORECASE)
_WHOLE = 0.99  # a share of the model on the GPU that rounding cannot explain counts as fallen to the CPU


@frozen
class Wait:
    """How waiting for readiness ended: `outcome` is ready, died, failed (it wrote a line that no engine recovers from,
    and did not end), stalled, timeout, or taken (the port, by a stranger).

    `exit_status`: the process's (negative: killed by that signal), None while it lives or unless it is our child.
    """

    outcome: str
    seconds: float
    exit_status: int | None


@frozen
class Patience:
    """How long to wait, in seconds: `timeout_s` in all, `stall_s` without any sign of life (log line or CPU time)."""

    timeout_s: float = 1800.0
    stall_s: float = 300.0


def wait_ready(
    child: subprocess.Popen[bytes],
    leader: Identity,
    mark: str,
    engine: Engine,
    address: tuple[str, int],
    tail: LogTail,
    patience: Patience,
    listener: Callable[[str, str], None],
    contained: Contained | None = None,
    health_path: str | None = None,
    fatal: Callable[[str], bool] = lambda _: False,
) -> Wait:
    """Wait until the engine answers its health check with 200.

    Races health against the child's death, a line that is `fatal`, the loss of the port to a stranger, a stall and the
    deadline; `listener(stage, line)` hears each new log line with the stage it announces ("" for none). `contained`:
    the container whose client the child is. Blocks at most `patience.timeout_s`.
    """
    begun, doomed = time.monotonic(), float("inf")
    life = _SignsOfLife(leader, mark, contained, begun)
    port = _Port(address[1], leader, mark, contained, begun)
    while True:
        for line in tail.lines():
            life.seen(time.monotonic())
            listener(engine.stage(line) or "", line)
            doomed = min(doomed, time.monotonic()) if fatal(line) else doomed
        if child.poll() is not None:
            return Wait("died", time.monotonic() - begun, child.returncode)
        if probe(*address, health_path or engine.health_path).status == 200 and port.ours():
            return Wait("ready", time.monotonic() - begun, None)
        now = time.monotonic()
        if now - doomed > _LAST_WORDS_S:
            return Wait("failed", now - begun, None)
        if port.lost(now):
            return Wait("taken", now - begun, None)
        if now - begun > patience.timeout_s:
            return Wait("timeout", now - begun, None)
        if life.silent_s(now) > patience.stall_s:
            return Wait("stalled", now - begun, None)
        wait_death(child.pid, min(_POLL_S, max(_SOON_S, _SHARE * (now - begun))))


class _Port:
    """The port on which the engine is to listen: somebody else may take it while the engine starts.

    A container's port is held by a process of its engine, or by none that can be seen: the engine's word counts, which
    it gives only once the port is its own.
    """

    def __init__(self, port: int, leader: Identity, mark: str, contained: Contained | None, now: float) -> None:
        self._port, self._leader, self._mark, self._contained = port, leader, mark, contained
        self._looked, self._strange = now, 0

    def ours(self) -> bool:
        """False if what answers there is not our engine."""
        if self._contained is not None:
            return publishes(self._contained, self._port)
        return listens(self._port, group_lazily(self._leader, self._mark)) is not False

    def lost(self, now: float) -> bool:
        """True once two looks, a second apart, have found a stranger there: one alone may be a port that changes hands
        from an engine's first process to its second."""
        if now - self._looked > _LOOK_AT_GROUP_S and self._contained is None:
            self._looked = now
            self._strange = 0 if self.ours() else self._strange + 1
        return self._strange > 1


class _SignsOfLife:
    """A process that neither logs nor uses the CPU is stuck, however long it is allowed to take."""

    def __init__(self, leader: Identity, mark: str, contained: Contained | None, now: float) -> None:
        self._leader, self._mark, self._contained = leader, mark, contained
        self._ticks, self._looked, self._last = 0, now, now

    def seen(self, now: float) -> None:
        self._last = now

    def silent_s(self, now: float) -> float:
        if now - self._looked > _LOOK_AT_GROUP_S:
            self._looked = now
            inside = pids(self._contained) if self._contained else ()
            ticks = cpu_ticks(tuple({*members(self._leader, self._mark), *inside}))
            if ticks != self._ticks:
                self._ticks, self._last = ticks, now
        return now - self._last


class Listener(WeightsListener, Protocol):
    """Hears how a start goes on: each stage as it is reached, what a pull does, and the engine's log lines."""

    def stage(self, stage: str, text: str) -> None:
        """`stage` is one of the contract's stages; `text` says what is being done."""

    def log_line(self, line: str) -> None:
        """A line that the engine logged."""


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


def join(record: Record, patience: Patience, listener: Listener, records: Records) -> Record | None:
    """Wait until an instance that another mscli is starting answers; its record then. None: it has ended, and nobody
    attends to it any more.

    The other mscli may change its plan and try again: then it is the new start that is waited for. Raises START_FAILED
    when the other gives up, StoppedMeanwhile when somebody stops it, START_TIMEOUT when it takes too long: it is left
    running.
    """
    deadline, starter = time.monotonic() + patience.timeout_s, record.starter
    tail = LogTail(record.log)
    attended = starter is not None and alive(starter)
    by = f" by PID {starter.pid}" if starter and attended else ""
    listener.stage(contract.STARTING, f"{record.name} is already being started{by}: waiting for it")
    while True:
        for line in tail.lines():
            listener.log_line(line)
        now = records.get(record.name)
        state = seen(now, records).state if now else CRASHED
        if now and state == STOPPED:
            raise stopped_meanwhile(now)
        if now and state not in (STARTING, CRASHED):
            return now
        starter = now.starter if now else starter
        if state == CRASHED and not (starter and alive(starter)):
            if not attended:
                return None
            raise MscliError(Code.START_FAILED, f"{record.name} did not start", f"See why: mscli logs {record.name}")
        if time.monotonic() > deadline:
            raise MscliError(
                Code.START_TIMEOUT,
                f"{record.name} was not ready after {patience.timeout_s:.0f} s; it is still starting",
                f"Allow more time: --timeout. Follow it: mscli logs {record.name} -f",
            )
        time.sleep(_JOIN_POLL_S)


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
        (lambda _: False) if early else _fatal,  # a server that holds many models lives on without a GPU
    )


def _fatal(line: str) -> bool:
    """Whether no engine recovers from what a line says."""
    if not _TROUBLE.search(line):
        return False
    from mscli.diagnosis.fatal import is_fatal  # reads the signatures; only a line of trouble needs them

    return is_fatal(line)


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


class Download(WeightsListener):
    """Hears of a pull and passes it on: notes how far it is, and ends it where somebody has stopped this start.

    `eta`: a start that waited for a pull tells nothing of the next.
    """

    def __init__(
        self, listener: WeightsListener, note: FetchNote, stopped: Callable[[], MscliError], eta: Eta | None = None
    ) -> None:
        self._listener, self._note, self._stopped, self._eta = listener, note, stopped, eta

    def progress(self, progress: Progress) -> None:
        """Passes it on. Raises StoppedMeanwhile."""
        if self._eta:
            self._eta.spoilt = True
        if progress.stage == DONE:
            self._note.end()
        elif not self._note.write(progress.done_bytes, progress.total_bytes):
            raise self._stopped()
        self._listener.progress(progress)

    def note(self, note: Note) -> None:
        """Passes it on."""
        self._listener.note(note)


def _may_fetch(launch: Launch, record: Record, engine: Hosted) -> None:
    """Raise if the model is not on the server and must not be fetched, or the user does not want it fetched."""
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


class StoppedMeanwhile(MscliError):
    """Somebody has stopped or replaced the instance on purpose while an mscli waited for it."""


def stopped_meanwhile(record: Record) -> StoppedMeanwhile:
    """The error for whoever waits: no failure of the start, so nothing is to be changed or remembered."""
    return stopped_fetching(record.name, record.plan.profile, record.log)


def stopped_fetching(name: str, profile: str, log: Path) -> StoppedMeanwhile:
    """The same for a start that has no record yet."""
    return StoppedMeanwhile(
        Code.START_FAILED,
        f"{name} was stopped by another mscli while it was starting",
        f"To list instances: mscli status. Start it again: mscli up {profile}",
        {"cause": "stopped", "log": str(log)},
    )


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
    from mscli.diagnosis.facts import facts_of
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
