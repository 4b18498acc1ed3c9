"""Checks of Ollama: the server that answers, whose it is, its settings, its folder, and whether it uses the GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mscli.diagnosis.causes import Cause
from mscli.diagnosis.log import read_log
from mscli.doctor.checks.check import Check, CheckContext, Finding, counted, fail, ok, skipped, warn
from mscli.doctor.checks.ollama.folder import folder_access, folder_room
from mscli.doctor.checks.ollama_server import NAME, OllamaState, ollama, program
from mscli.engines.ollama.api import Api, Refusal
from mscli.engines.ollama.observed import OLDEST_FOR, Remark, refuse_old, remarks
from mscli.engines.ollama.server import UNIT, Address, Server, Service, is_here
from mscli.errors import MscliError
from mscli.inventory.host import holder
from mscli.inventory.ports import owner, owner_uid

ABSENT = "Ollama not installed (no server, program or service)"
NONE = "no Ollama server answers"
START = "sudo systemctl start ollama"
# Tokens; a page of text is about 700, and a picture up to 3000.
_SHORT = 8192


def _server(ctx: CheckContext) -> Iterator[Finding]:
    """Who answers where clients look; a service that is there and does not run; a port that something else holds."""
    seen = ollama(ctx)
    if seen.elsewhere:
        value = ctx.env.get("OLLAMA_HOST", "")
        yield warn(
            None,
            f"OLLAMA_HOST={value} not supported (only plain HTTP without a path)",
            "Use the server's own address:",
            command="export OLLAMA_HOST=127.0.0.1:11434",
        )
        return
    if seen.stranger:
        yield _stranger(ctx, seen)
    if not is_here(seen.asked.host) and (not seen.server or seen.server.address != seen.asked):
        yield warn(
            "ollama_not_running",
            f"no Ollama server at {_place(seen.asked)} (OLLAMA_HOST, another machine)",
            "Start it there; to use this machine:",
            f"OLLAMA_HOST={ctx.env.get('OLLAMA_HOST', '')}",
            command="unset OLLAMA_HOST",
        )
    if seen.server:
        yield ok(f"Ollama {seen.server.version} at {_place(seen.server.address)} ({seen.server.owner})")
    elif seen.service:
        yield _stopped(ctx, seen.service)
    elif found := program(ctx):
        yield ok(f"{NONE}; mscli starts {found.path} ({found.version or 'version unknown'}) when needed")
    elif ctx.wants(NAME):
        yield fail("engine_missing", ABSENT, "Install it, without root:", command="mscli engines install ollama")
    elif not seen.stranger:
        yield skipped(ABSENT)


def _stranger(ctx: CheckContext, seen: OllamaState) -> Finding:
    """Something that is not Ollama holds the port where its clients look."""
    place = seen.asked
    pid, uid = owner(place.port), owner_uid(place.port)
    command = holder(pid, None, ctx.root / "proc").command or "" if pid else ""
    who = f"PID {pid}: {command}" if pid else f"a process of UID {uid}"
    if ("ollama" in command and " serve" in command) or (pid is None and seen.service and seen.service.active):
        return warn(
            "ollama_not_running", f"the Ollama server at {_place(place)} does not answer properly ({who})",
            "It may be loading a model from a slow disk; else restart it.", seen.stranger or "",
        )  # fmt: skip
    told = f"Ollama's port {_place(place)} is in use by another program ({who})"
    remedy = f"Stop it, or set OLLAMA_HOST=127.0.0.1:{place.port + 1} for server and clients:"
    installed = seen.service or program(ctx)
    bad = (installed and not seen.server) or ctx.wants(NAME)
    severity = fail if bad else warn
    return severity("port", told, remedy, seen.stranger or "", command=f"ss -ltnp 'sport = :{place.port}'")


def _stopped(ctx: CheckContext, service: Service) -> Finding:
    """A service that is installed and does not run. Beside it `ollama serve` would be a second server."""
    tries = f", after {counted(service.restarts, 'restart')}" if service.restarts else ""
    told = f"{NONE} (systemd service {service.state or 'not active'}{tries})"
    remedy = "Start the service, not `ollama serve` (another user, other models):"
    evidence = f"{service.unit_file}, user {service.user}"
    if service.state in ("inactive", "") and not service.enabled and not ctx.wants(NAME):
        return warn("ollama_not_running", f"{told[:-1]}, disabled)", remedy, evidence, command=START)
    if service.state in ("failed", "activating"):
        remedy = f"Look at its log: journalctl -u ollama -e. {remedy}"
    return fail("ollama_not_running", told, remedy, evidence, command=START)


def _version(ctx: CheckContext) -> Iterator[Finding]:
    """The version of the server that runs, not of its client: against the model, and against what is installed."""
    server = ollama(ctx).server
    if server is None:
        yield skipped(NONE)
        return
    found = program(ctx)
    chosen = ctx.chosen if ctx.wants(NAME) else None
    try:
        if chosen:
            refuse_old(server, found, chosen.variant)
    except MscliError as fault:
        yield fail("version_backend_old", fault.message, fault.hint)
        return
    old = None if chosen else _older_than_models(server)
    if old:
        yield warn("version_backend_old", old, "Install a newer Ollama, then restart the server.")
    told = [each for each in _remarks(ctx, server) if each.cause in ("version_backend_old", "cpu_fallback")]
    for each in told:
        yield _finding(each)
    if not told and not old:
        yield ok(f"server {server.version}, program {(found.version or 'unknown') if found else 'not installed'}")


def _older_than_models(server: Server) -> str | None:
    from mscli.planning.request import parse_version

    running = parse_version(server.version)
    needed = max(OLDEST_FOR.values())
    if not running or not any(running) or running >= needed:
        return None
    models = " and ".join(OLDEST_FOR)
    return f"Ollama server {server.version} ({server.owner}) is too old for {models}"


def _identity(ctx: CheckContext) -> Iterator[Finding]:
    """Whose server answers: two installations, two servers or two model folders; addresses that do not meet."""
    seen = ollama(ctx)
    server, service = seen.server, seen.service
    if server is None:
        yield skipped(NONE)
        return
    told = [each for each in _remarks(ctx, server) if each.cause in ("ollama_two_users", "ollama_not_running")]
    if service and server.local and not server.container and not server.service:
        told.append(_two_servers(server, service))
    if not server.local:
        told.append(Remark(None, f"{server.owner} (not this machine's GPUs)"))
    for each in told:
        yield _finding(each)
    if not told:
        yield ok(f"one server ({server.owner}), models in {server.models or 'unknown folder'}")


def _two_servers(server: Server, service: Service) -> Remark:
    runs = "also running" if service.active else "stopped"
    return Remark(
        "ollama_two_users",
        f"two Ollama installations with separate models: {server.owner} in {server.models or 'unknown'}, systemd "
        f"service (user {service.user}, {runs}) in {service.models or 'unknown'}",
        f"Use one: stop the one started by hand and run {START} (settings: sudo systemctl edit ollama).",
    )


def _settings(ctx: CheckContext) -> Iterator[Finding]:
    """The context in force, and settings of the shell that the server does not see."""
    server = ollama(ctx).server
    if server is None:
        yield skipped(NONE)
        return
    if server.env is None:
        yield skipped(f"context unknown (cannot read the environment of {server.owner})")
        return
    shell = [
        each
        for each in _remarks(ctx, server)
        if "is set in this shell" in each.seen and each.cause != "ollama_two_users"
    ]
    for each in shell:
        yield _finding(each)
    if not any(each.cause == "context_truncated" for each in shell):
        yield _context(server)


def _context(server: Server) -> Finding:
    value = (server.env or {}).get("OLLAMA_CONTEXT_LENGTH", "")
    if value.isdigit() and 0 < int(value) < _SHORT:
        return warn(
            "context_truncated",
            f"OLLAMA_CONTEXT_LENGTH={value} in the server's environment (longer prompts are cut silently)",
            "mscli sets the context of its own models; for other clients, raise it where the server is started.",
        )
    if value.isdigit() and int(value):
        return ok(f"OLLAMA_CONTEXT_LENGTH={value} in the server's environment")
    return ok("OLLAMA_CONTEXT_LENGTH not set (Ollama's default; mscli sets the context of its own models)")


def _remarks(ctx: CheckContext, server: Server) -> tuple[Remark, ...]:
    model = ctx.chosen.model if ctx.chosen and ctx.wants(NAME) else None
    return ctx.once("ollama remarks", lambda: remarks(server, program(ctx), model, ctx.env))


def _finding(remark: Remark) -> Finding:
    return warn(remark.cause, remark.seen, remark.remedy)


def _place(place: Address) -> str:
    return f"{f'[{place.host}]' if ':' in place.host else place.host}:{place.port}"


_LINES = 400
_JOURNAL_TIMEOUT_S = 1.5
_BEGINS = re.compile(r'msg="server config"|Started ollama\.service|Starting ollama\.service')
_NOT_ALLOWED = re.compile(r"not seeing messages from other users|insufficient permissions", re.IGNORECASE)
# What keeps every model off the GPUs, for as long as this server runs.
_WHOLE = frozenset(
    (
        *("no_driver", "nvml_not_found", "nvml_mismatch", "driver_too_old", "driver_vs_compat", "wsl", "suspend"),
        *("fabric_manager", "visible_devices", "container_gpu_lost", "backend_no_gpu_build", "compute_capability"),
        "cuda_arch",
    )
)
_NO_GPU_FOUND = re.compile(r"inference compute.*library=cpu|no compatible GPUs were discovered")
_FOR_CPU = re.compile(r"CUDA_VISIBLE_DEVICES[:=]\"?-1\b")  # as mscli starts a server for the CPU
# What was so when a request or a load failed may be over.
_PASSING = frozenset(["oom_weights", "oom_kv", "gpu_busy", "host_ram", "cpu_fallback", "context_truncated"])


def gpu_use(ctx: CheckContext) -> Iterator[Finding]:
    """Which part of each model in memory sits on the GPUs."""
    server = ollama(ctx).server
    if server is None or not server.local:
        yield skipped("no Ollama server on this machine")
        return
    try:
        models = Api(server.address.host, server.address.port).in_memory()
    except Refusal as refusal:
        yield warn(None, f"cannot list loaded models: {refusal.words}", "Restart the server.")
        return
    if not models:
        yield ok("no model loaded")
    for name, held in models.items():
        share = held.gpu_bytes / held.size_bytes if held.size_bytes else 1.0
        context = f", context {held.context}" if held.context else ""
        if share >= 1 or not ctx.inventory.gpus:
            yield ok(f"{name}: {share:.0%} on the GPU{context}")
        else:
            yield _on_cpu(name, share, context)


def _on_cpu(name: str, share: float, context: str) -> Finding:
    severity = warn if share else fail
    return severity(
        "cpu_fallback",
        f"{name}: only {share:.0%} on the GPU{context}",
        "Usually too little free GPU memory: use less context, see mscli gpus and journalctl -u ollama.",
        command="ollama ps",
    )


def gpu_log(ctx: CheckContext) -> Iterator[Finding]:
    """What the server's own log says since it was last started."""
    where, log = _log(ctx)
    if log is None:
        yield skipped(where)
        return
    begins = [match.start() for match in _BEGINS.finditer(log)]
    running = ollama(ctx).server is not None
    recent = log[begins[-1] :] if begins and running else log
    gpus = bool(ctx.inventory.gpus)
    causes = [cause for cause in ctx.causes(recent, NAME) if gpus or cause.code not in _WHOLE | {"cpu_fallback"}]
    blind = _NO_GPU_FOUND.search(recent)
    if not causes:
        yield (
            _blind(where, blind[0])
            if gpus and blind and not _FOR_CPU.search(recent)
            else ok(f"{where}: no known problem")
        )
    for cause in causes[:2]:
        yield _log_finding(cause, where, running, bool(blind))


def _blind(where: str, line: str) -> Finding:
    """The log alone would be that of a machine without a GPU; this one has some."""
    return fail(
        "cpu_fallback",
        f"{where}: the server found no GPU when it started, and this machine has some",
        "Restart the server: it may have started before the driver was ready. Its log says more with OLLAMA_DEBUG=1.",
        line,
    )


def _log_finding(cause: Cause, where: str, running: bool, blind: bool) -> Finding:
    """`blind`: the server found no GPU when it started, so that everything it loads is on the CPU."""
    lasting = cause.code in _WHOLE or (cause.code == "cpu_fallback" and blind)
    bad = lasting or (not running and cause.code not in _PASSING)
    severity = fail if bad else warn
    return severity(cause.code, f"{where}: {cause.summary}", cause.remedy, *cause.evidence[:3])


def _log(ctx: CheckContext) -> tuple[str, str | None]:
    """Where the log was found and its end, or why there is none."""
    seen = ollama(ctx)
    server = seen.server
    for record in ctx.records:
        if record.plan.engine == NAME and record.identity and server and record.port == server.address.port:
            try:
                return f"log of instance {record.name}", read_log(record.log)[0]
            except OSError as fault:
                return f"cannot read {record.log} ({fault.strerror})", None
    if seen.service is None or (server and server.service is None):
        return "no log (no running Ollama service or instance)", None
    asked = ("journalctl", "-u", UNIT, "-b", "-n", str(_LINES), "--no-pager", "-o", "cat")
    told = ctx.run(*asked, timeout_s=_JOURNAL_TIMEOUT_S)
    if told is None or told.status is None:
        return "journalctl did not answer", None
    text = told.out.strip()
    if _NOT_ALLOWED.search(told.err) and (not text or text.startswith("-- No entries")):
        return "cannot read the service log; run: sudo journalctl -u ollama | mscli doctor --log -", None
    if not text or text.startswith("-- No entries"):
        return "the service log is empty since boot", None
    return "service log", text


CHECKS = (
    Check("ollama.server", _server),
    Check("ollama.version", _version),
    Check("ollama.identity", _identity),
    Check("ollama.settings", _settings),
    Check("ollama.folder", folder_access),
    Check("ollama.disk", folder_room),
    Check("ollama.gpu", gpu_use),
    Check("ollama.log", gpu_log, deadline_s=6.0),
)
