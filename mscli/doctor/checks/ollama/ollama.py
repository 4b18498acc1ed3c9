"""Checks of Ollama: the server that answers, whose it is, its settings, its folder, and whether it uses the GPU."""

from __future__ import annotations

from collections.abc import Iterator

from mscli.doctor.checks.check import Check, Seen, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.ollama.folder import folder_access, folder_room
from mscli.doctor.checks.ollama.gpu import gpu_log, gpu_use
from mscli.doctor.checks.ollama.view import View, program, view, wanted
from mscli.engines.ollama.server import Address, Server, Service, is_here
from mscli.engines.ollama.warnings import OLDEST_FOR, Remark, refuse_old, remarks
from mscli.errors import MscliError
from mscli.inventory.kernel import holder
from mscli.inventory.ports import owner, owner_uid

ABSENT = "Ollama is not here: no server answers, no program, no service"
NONE = "no Ollama server answers"
START = "sudo systemctl start ollama"
# Tokens; a page of text is about 700, and a picture up to 3000.
_SHORT = 8192


def _server(ctx: CheckContext) -> Iterator[Seen]:
    """Who answers where clients look; a service that is there and does not run; a port that something else holds."""
    seen = view(ctx)
    if seen.elsewhere:
        value = ctx.env.get("OLLAMA_HOST", "")
        yield warn(
            None,
            f"OLLAMA_HOST={value}: mscli reaches an Ollama server over plain HTTP only, and at its root",
            "Give the server's own address, for example OLLAMA_HOST=127.0.0.1:11434.",
        )
        return
    if seen.stranger:
        yield _stranger(ctx, seen)
    if not is_here(seen.asked.host) and (not seen.server or seen.server.address != seen.asked):
        yield warn(
            "ollama_not_running",
            f"clients in this shell look for Ollama at {_place(seen.asked)}, on another machine, and nothing answers",
            "Start it there, or unset OLLAMA_HOST for a server of this machine.",
            f"OLLAMA_HOST={ctx.env.get('OLLAMA_HOST', '')}",
        )
    if seen.server:
        yield ok(f"Ollama {seen.server.version} answers at {_place(seen.server.address)} ({seen.server.owner})")
    elif seen.service:
        yield _stopped(ctx, seen.service)
    elif found := program(ctx):
        yield ok(f"{NONE}; mscli starts {found.path} ({found.version or 'version unknown'}) when it is needed")
    elif wanted(ctx):
        yield fail(
            "engine_missing", ABSENT, "mscli can fetch it, without root.", command="mscli engines install ollama"
        )
    elif not seen.stranger:
        yield skipped(ABSENT)


def _stranger(ctx: CheckContext, seen: View) -> Seen:
    """Something that is not Ollama holds the port where its clients look."""
    place = seen.asked
    pid, uid = owner(place.port), owner_uid(place.port)
    command = holder(pid, None, ctx.root / "proc").command or "" if pid else ""
    who = f"pid {pid} ({command})" if pid else f"a process of user {uid}"
    if "ollama" in command or (pid is None and seen.service and seen.service.active):
        return warn(
            "ollama_not_running", f"the Ollama server at {_place(place)} ({who}) does not answer as one",
            "Wait if it loads a model from a slow disk; else restart it.", seen.stranger or "",
        )  # fmt: skip
    told = f"{_place(place)}, where clients look for Ollama, is held by something else: {who}"
    remedy = f"Stop it, or run Ollama on another port: OLLAMA_HOST=127.0.0.1:{place.port + 1} for server and clients."
    installed = seen.service or program(ctx)
    bad = (installed and not seen.server) or wanted(ctx)
    status = fail if bad else warn
    return status("port", told, remedy, seen.stranger or "", command=f"ss -ltnp 'sport = :{place.port}'")


def _stopped(ctx: CheckContext, service: Service) -> Seen:
    """A service that is installed and does not run. Beside it `ollama serve` would be a second server."""
    tries = f", after {service.restarts} restarts" if service.restarts else ""
    told = f"{NONE}: its systemd service is there, but {service.state or 'not active'}{tries}"
    remedy = "Start the service (and no `ollama serve` beside it: that would be another user's, with its own models)."
    evidence = f"{service.unit_file}, user {service.user}"
    if service.state in ("inactive", "") and not service.enabled and not wanted(ctx):
        return warn("ollama_not_running", f"{told}, and disabled", remedy, evidence, command=START)
    if service.state in ("failed", "activating"):
        remedy = f"Its log says why: `journalctl -u ollama -e`. {remedy}"
    return fail("ollama_not_running", told, remedy, evidence, command=START)


def _version(ctx: CheckContext) -> Iterator[Seen]:
    """The version of the server that runs, not of its client: against the model, and against what is installed."""
    server = view(ctx).server
    if server is None:
        yield skipped(NONE)
        return
    found = program(ctx)
    chosen = ctx.chosen if wanted(ctx) else None
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
        yield _as_seen(each)
    if not told and not old:
        yield ok(f"the server that runs is {server.version}; the program: {found.version if found else 'none here'}")


def _older_than_models(server: Server) -> str | None:
    from mscli.planning.request import parse_version

    running = parse_version(server.version)
    needed = max(OLDEST_FOR.values())
    if not running or not any(running) or running >= needed:
        return None
    models = " and ".join(OLDEST_FOR)
    return f"the Ollama server that runs ({server.owner}) is {server.version}: too old for {models}"


def _identity(ctx: CheckContext) -> Iterator[Seen]:
    """Whose server answers: two installations, two servers or two model folders; addresses that do not meet."""
    seen = view(ctx)
    server, service = seen.server, seen.service
    if server is None:
        yield skipped(NONE)
        return
    told = [each for each in _remarks(ctx, server) if each.cause in ("ollama_two_users", "ollama_not_running")]
    if service and server.local and not server.container and not server.service:
        told.append(_two_servers(server, service))
    if not server.local:
        told.append(Remark(None, f"{server.owner}: its GPUs are not those of this machine"))
    for each in told:
        yield _as_seen(each)
    if not told:
        yield ok(f"one server: {server.owner}; models in {server.models or 'a folder that cannot be told from here'}")


def _two_servers(server: Server, service: Service) -> Remark:
    runs = "runs as well" if service.active else "is installed, but does not run"
    return Remark(
        "ollama_two_users",
        f"the server that answers is {server.owner}, and the systemd service (user {service.user}) {runs}: what one "
        f"has pulled the other does not see ({server.models or 'unknown'} and {service.models or 'unknown'})",
        "Run one of them: stop the one started by hand and use the service "
        f"({START}; settings: `sudo systemctl edit ollama`).",
    )


def _settings(ctx: CheckContext) -> Iterator[Seen]:
    """The context in force, and settings of the shell that the server does not see."""
    server = view(ctx).server
    if server is None:
        yield skipped(NONE)
        return
    if server.env is None:
        yield skipped(f"the environment of {server.owner} cannot be read by this user: its context is not known")
        return
    shell = [
        each
        for each in _remarks(ctx, server)
        if "is set in this shell" in each.seen and each.cause != "ollama_two_users"
    ]
    for each in shell:
        yield _as_seen(each)
    if not any(each.cause == "context_truncated" for each in shell):
        yield _context(server)


def _context(server: Server) -> Seen:
    value = (server.env or {}).get("OLLAMA_CONTEXT_LENGTH", "")
    if value.isdigit() and 0 < int(value) < _SHORT:
        return warn(
            "context_truncated",
            f"OLLAMA_CONTEXT_LENGTH={value} in the server's environment: longer prompts are cut without a word",
            "mscli's own models bring their context along; for other clients raise it where the server is started.",
        )
    if value.isdigit() and int(value):
        return ok(f"OLLAMA_CONTEXT_LENGTH={value} in the server's environment")
    return ok(
        "OLLAMA_CONTEXT_LENGTH is not set for the server: clients that ask for no context get its version's default "
        "(mscli's own models bring theirs along)"
    )


def _remarks(ctx: CheckContext, server: Server) -> tuple[Remark, ...]:
    model = ctx.chosen.model if ctx.chosen and wanted(ctx) else None
    return ctx.once("ollama remarks", lambda: remarks(server, program(ctx), model, ctx.env))


def _as_seen(remark: Remark) -> Seen:
    return warn(remark.cause, remark.seen, remark.remedy)


def _place(place: Address) -> str:
    return f"{f'[{place.host}]' if ':' in place.host else place.host}:{place.port}"


CHECKS = (
    Check("ollama.server", _server),
    Check("ollama.version", _version),
    Check("ollama.identity", _identity),
    Check("ollama.settings", _settings),
    Check("ollama.folder", folder_access),
    Check("ollama.disk", folder_room),
    Check("ollama.gpu", gpu_use),
    Check("ollama.log", gpu_log),
)
