"""One start, gathered before anything runs: where it serves, what is executed, and then the process and its record."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mscli.engines.engine import Adopted, Command, Engine, Hosted, Installation, Serving
from mscli.engines.environment import inherited
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace
from mscli.instances import container as containers
from mscli.instances.log import LogTail, begin_part, part
from mscli.instances.process import MARK, halt, identify, memory_kills, spawn
from mscli.instances.records import GGUF, Record, Records, Request, running
from mscli.instances.store import SCHEMA, private_folder, write_private
from mscli.lifecycle import port as ports
from mscli.lifecycle.decision import Decision
from mscli.weights.progress import WeightFiles

FIRST_PORT = 8000
GATEWAY, LIBRARY = "mscli.engines.serving.gateway", "library"
LOG_LIMIT_BYTES, LOGS_KEPT = 64 * 2**20, 3
_LOG_BYTES = 50 * 2**20


@frozen
class Launch:
    """Everything that one start needs. `adopted`: the server is there already, and only gets our model. `replaces`: an
    instance of this name is stopped first, so that its port counts as free.

    `offline`: nothing may be fetched; `agree`: asked before a large download (see up.Ask).
    """

    name: str
    request: Request
    decision: Decision
    engine: Engine
    installation: Installation | None
    weights: WeightFiles
    api_key: str | None
    adopted: Adopted | None = None
    warnings: tuple[str, ...] = ()
    offline: bool = False
    agree: Callable[[int], bool] | None = None
    replaces: bool = False


@frozen
class Started:
    """A spawned engine, or (`child` None) an adopted one. `memory_kills`: of the kernel, before it was spawned."""

    record: Record
    child: subprocess.Popen[bytes] | None
    tail: LogTail
    memory_kills: int | None = None

    def log_text(self) -> str:
        """Everything this start has logged so far."""
        if self.child is None:
            return ""
        return part(self.record.log, self.record.log_start, _LOG_BYTES)


class StartFailure(MscliError):
    """The error of a failed start, with what was to be started and all that the engine logged.

    `log` is "" where the engine said nothing, or wrote no log of ours. `adopted`: the server is not ours.
    """

    decision: Decision
    log: str
    adopted: bool

    @classmethod
    def of(cls, fault: MscliError, decision: Decision, log: str, adopted: bool = False) -> StartFailure:
        """The same error, with what belongs to it."""
        failure = cls(fault.code, fault.message, fault.hint, fault.details)
        failure.decision, failure.log, failure.adopted = decision, log, adopted
        return failure


def serving(launch: Launch, records: Records) -> Serving:
    """Where the instance would serve. Looks for a free port; creates nothing. Raises PORT_TAKEN or USAGE."""
    name, adopted = launch.name, launch.adopted
    host = adopted.host if adopted else launch.request.host or launch.decision.profile.host
    run_dir = records.run_dir(name)
    front = gateway(launch)
    keyed = (front or launch.engine.capabilities.api_key) and (launch.api_key is not None or not loopback(host))
    return Serving(
        name=name,
        host=host,
        port=adopted.port if adopted else _port(host, launch, records),
        alias=launch.engine.alias_of(name) if isinstance(launch.engine, Hosted) else launch.decision.model.name,
        run_dir=run_dir,
        log=run_dir / "log",
        api_key_file=run_dir / "key" if keyed and not adopted else None,
        gateway=front,
        engine_port=_engine_port() if front not in (None, LIBRARY) else None,
    )


def gateway(launch: Launch) -> str | None:
    """How the gateway in front of the instance speaks to its engine; None where there is none.

    There is one where a library is the engine, where it was asked for, in front of an engine that asks for no key
    itself, and for agents in front of one that does not answer them, unless it is to be left out.
    """
    engine, request, found = launch.engine, launch.request, launch.installation
    if launch.adopted:
        return None
    if engine.capabilities.gateway == LIBRARY or (found and found.library):
        return LIBRARY
    agents = request.overrides.least_context is not None and not engine.capabilities.answers_agents
    needed = agents or not engine.capabilities.api_key
    wanted = needed if request.gateway is None else request.gateway
    return engine.capabilities.gateway if wanted else None


def _engine_port() -> int:
    """A port on loopback that is free now, from those that the kernel gives to anybody."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def command(launch: Launch, where: Serving) -> Command:
    """What is executed to serve `launch` at `where`: what a dry run shows is what runs. Empty for an adopted server."""
    decision, model = launch.decision, launch.decision.model
    if launch.adopted or launch.installation is None:
        return Command(())
    if launch.request.template == GGUF:
        model = replace(model, tokenizer=None)  # mscli has a template for a known tokenizer alone
    return launch.engine.command(
        decision.plan, decision.profile, model, launch.weights, where.behind, launch.installation
    )


def start(launch: Launch, records: Records) -> Started:
    """Write the record, spawn the engine, complete the record. To be called under the records' lock; returns at once.

    An engine whose record cannot be kept is ended. Raises PORT_TAKEN, START_FAILED when the program cannot be executed,
    FILE or DISK_FULL when the record cannot be written; nothing of the start is left then.
    """
    where, claim = _claimed(launch, records)
    with claim:
        return _start(launch, records, where, claim)


def _start(launch: Launch, records: Records, where: Serving, claim: socket.socket) -> Started:
    what = command(launch, where)
    records.tidy(launch.name)
    run_dir = records.prepare(launch.name)
    (run_dir / "key").unlink(missing_ok=True)
    if where.api_key_file:
        write_private(where.api_key_file, (launch.api_key or os.urandom(24).hex()) + "\n")
    tail = LogTail(where.log)
    record = _record(launch, where, what, f"{launch.name}:{os.urandom(8).hex()}", begin_part(where.log))
    records.save(record)
    if launch.adopted:
        return Started(record, None, tail)
    child, killed_before = None, memory_kills()
    try:
        _lay_out(what, run_dir)
        argv = _fronted(launch, where, what.argv) if where.gateway else what.argv
        if launch.request.supervise:
            argv = _supervised(launch, where, argv)
        child = _spawn(launch.engine.name, replace(what, argv=argv), where, record.mark, claim)
        record = replace(record, identity=identify(child.pid))
        if record.identity is None:
            raise MscliError(
                Code.START_FAILED, f"{launch.engine.name} exited immediately", f"Look at its log: {where.log}"
            )
        records.save(record)
    except (MscliError, OSError):
        if child:
            _kill(record)
            child.wait()
        records.forget(launch.name)
        raise
    return Started(record, child, tail, killed_before)


def _lay_out(what: Command, run_dir: Path) -> None:
    """Write the files that the engine reads, and make its folder for temporary ones. Raises FILE, DISK_FULL, OSError.

    Only once there is a record: whatever ends a start, somebody knows then what to remove.
    """
    private_folder(run_dir / "tmp")
    for path, text in what.files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, text)
    for path, target in what.links.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def _kill(record: Record) -> None:
    """End an engine at once that was spawned a moment ago."""
    if record.contained:
        containers.end(record.contained, record.identity, record.mark, (), 0.0, lambda _: None)
    else:
        halt(record.identity, record.mark, (), 0.0)


def loopback(host: str) -> bool:
    """True for addresses that only this machine can reach."""
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _claimed(launch: Launch, records: Records) -> tuple[Serving, socket.socket]:
    """Where to serve, with the port claimed (an adopted server's needs no claim). Raises PORT_TAKEN."""
    while True:
        where = serving(launch, records)
        claim = socket.socket(socket.AF_UNIX) if launch.adopted else ports.claim(where.port)
        if claim is not None:
            return where, claim
        if launch.request.port is not None:
            raise MscliError(
                Code.PORT_TAKEN,
                f"port {where.port} is being used by another instance that starts now",
                "Use another one with --port, or leave out --port to use a free one.",
                {"port": where.port, "owner_pid": None},
            )


def _fronted(launch: Launch, where: Serving, argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command line of the instance's gateway, which starts the engine and answers for it."""
    plan, sampling = launch.decision.plan, launch.decision.model.sampling
    flags = {
        "--kind": where.gateway,
        "--alias": where.alias,
        "--host": where.host,
        "--port": where.port,
        "--engine-port": where.engine_port,
        "--health-path": launch.engine.health_path,
        "--api-key-file": where.api_key_file,
        "--context": plan.context,
        "--users": plan.users,
        "--images": plan.images,
        "--temperature": sampling.temperature,
        "--top-p": sampling.top_p,
    }
    words = (word for flag, value in flags.items() if value is not None for word in (flag, str(value)))
    return (sys.executable, "-m", GATEWAY, *words, "--", *argv)


def _supervised(launch: Launch, where: Serving, argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command line of the instance's companion, which starts the engine and keeps it running."""
    folder = str(Path(__file__).parent)  # imported from there, its compiled form is used
    code = f"import sys; sys.path.append({folder!r}); import companion; sys.exit(companion.main(sys.argv[1:]))"
    settings = (f"{key}={value}" for key, value in companion_settings(launch, where).items())
    return (sys.executable, "-I", "-S", "-c", code, *settings, "--", *argv)


def companion_settings(launch: Launch, where: Serving) -> dict[str, object]:
    """What the companion has to know. `judge`: the command that says whether an end is worth another start, by lines.

    `watch_s`: how often the engine is asked for its health, and how long it may take; `silent_s`, `start_s`: after how
    long without a good answer it counts as hung, once it has served and before. `log_bytes`: where the log is rotated.
    """
    return {
        "folder": where.run_dir,
        "log": where.log,
        "log_bytes": LOG_LIMIT_BYTES,
        "log_kept": LOGS_KEPT,
        "host": {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.host, where.host),
        "port": where.port,
        "health_path": _health_path(launch, where),
        "signals": " ".join(str(int(number)) for number in launch.engine.stop_signals),
        "grace_s": launch.engine.stop_grace_s,
        "judge": "\n".join((sys.executable, "-m", "mscli.lifecycle.restarts", launch.name)),
        "watch_s": 10.0,
        "silent_s": 60.0,
        "start_s": 1800.0,
    }


def _spawn(engine: str, what: Command, where: Serving, mark: str, claim: socket.socket) -> subprocess.Popen[bytes]:
    # A folder of its own for temporary files: engines leave sockets behind, and this one goes with the instance.
    secrets = {name: path.read_text().strip() for name, path in what.secrets.items()}
    own = {"TMPDIR": str(where.run_dir / "tmp")}
    if (
        what.contained is None
    ):  # llama.cpp reads a config.ini there before its flags; a container's client needs its own
        own["XDG_CONFIG_HOME"] = str(where.run_dir / "config")
    env = {**inherited(engine, os.environ), **own, **what.env, **secrets, MARK: mark}
    try:
        return spawn(what.argv, env, where.log, where.run_dir, (claim.fileno(),))
    except OSError as fault:
        raise MscliError(
            Code.START_FAILED,
            f"{what.argv[0]} could not be executed: {fault.strerror}",
            "Check that the file exists and may be executed by this user.",
        ) from fault


def _record(launch: Launch, where: Serving, what: Command, mark: str, log_start: int) -> Record:
    """The record of a start whose engine is not spawned yet."""
    model, adopted, found = launch.decision.model, launch.adopted, launch.installation
    return Record(
        schema=SCHEMA,
        name=launch.name,
        request=launch.request,
        plan=launch.decision.plan,
        title=model.title,
        stand_in=model.stand_in,
        alias=where.alias,
        sampling=model.sampling,
        system_prompt=model.system_prompt,
        reasoning=model.reasoning,
        capabilities=tuple(name for name in model.capabilities if getattr(launch.engine.capabilities, name)),
        identity=None,
        owner=adopted.owner if adopted else None,
        mark=mark,
        engine_version=adopted.version if adopted else found.version if found else None,
        argv=what.argv,
        env=dict(what.env),
        host=where.host,
        port=where.port,
        health_path=_health_path(launch, where),
        api_key_file=where.api_key_file,
        log=where.log,
        weights=tuple(Path(path) for path in (launch.weights.model, launch.weights.projector) if path),
        since=time.time(),
        contained=what.contained,
        starter=identify(os.getpid()),
        log_start=log_start,
        gateway=where.gateway,
        engine_port=where.engine_port,
    )


def _health_path(launch: Launch, where: Serving) -> str:
    return "/health" if where.gateway else launch.engine.health_path


def _port(host: str, launch: Launch, records: Records) -> int:
    asked, first = launch.request.port, launch.decision.profile.port or FIRST_PORT
    try:
        if asked is not None:
            return asked if _replaced(launch, asked, records) else _asked(host, asked, records)
        known = records.all()[0]
        others = {record.port for record in known if record.name != launch.name and record.stopped_at is None}
        chosen = ports.choose(host, first, others)
    except OSError as fault:
        raise MscliError(
            Code.USAGE,
            f"cannot listen on {host}: {fault.strerror or fault}",
            "Use an address of this machine with --host; the default is 127.0.0.1.",
        ) from fault
    if chosen is None:
        raise MscliError(Code.PORT_TAKEN, f"no free port from {first} on", "Choose one with --port.")
    return chosen


def _replaced(launch: Launch, port: int, records: Records) -> bool:
    """True if the port is held by the instance that this start replaces."""
    old = records.get(launch.name) if launch.replaces else None
    return old is not None and old.port == port and running(old)


def _asked(host: str, port: int, records: Records) -> int:
    if ports.free(host, port):
        return port
    ours = next((record.name for record in records.all()[0] if record.port == port and running(record)), None)
    who = ports.describe_owner(port) if ports.listening(port) else "a system reservation (ports below 1024)"
    other = "another one with --port, or leave out --port to use a free one."
    raise MscliError(
        Code.PORT_TAKEN,
        f"port {port} on {host} is taken by " + (f"the instance {ours!r}" if ours else who),
        f"Stop it: mscli down {ours}. Or use {other}" if ours else f"Use {other}",
        {"port": port, "owner_pid": ports.owner(port)},
    )
