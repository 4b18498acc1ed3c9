"""`mscli up`, `down`, `restart` and `service`: instances started and stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.layout import Column
from mscli.cli.screen import Screen, open_screen
from mscli.cli.starting import Wishes, start
from mscli.cli.tree import (
    Commands,
    Container,
    Context,
    Engine,
    Events,
    ForAgents,
    Gpus,
    Heal,
    Images,
    Instance,
    Json,
    Kv,
    Offload,
    Prefer,
    ProfileFile,
    TimeoutS,
    Users,
    Variant,
)
from mscli.cli.typed import typed_profile
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.instances.fetching import Fetching
    from mscli.instances.records import Record, Records
    from mscli.instances.store import Unreadable
    from mscli.lifecycle.shutdown import Stopped

_EPILOG = "Examples: mscli up  |  mscli up rehearsal  |  mscli up --for agents  |  mscli up small-q4 --dry-run"

_PROFILE = "Profile or model to start (default: best fit)."
_NAME = "Name the instance (default: from the profile)."
_PORT = "Listen on this port (default: a free one)."
_HOST = "Listen on this address (default: from the profile)."
_WEIGHTS = "Use weights copied by `mscli pull --to`."
_TEMPLATE = "Use the GGUF file's chat template (llama.cpp)."
_KEY_FILE = "Read the keys that clients must send from FILE."


def up(
    ctx: typer.Context,
    profile: Annotated[str | None, typer.Argument(metavar="[PROFILE]", help=_PROFILE)] = None,
    file: ProfileFile = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help=_NAME)] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="N", min=1, max=65535, help=_PORT)] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help=_HOST)] = None,
    context: Context = None,
    gpus: Gpus = None,
    users: Users = None,
    images: Images = None,
    kv: Kv = None,
    engine: Engine = None,
    container: Container = False,
    variant: Variant = None,
    prefer: Prefer = None,
    timeout: TimeoutS = 1800.0,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is ready.")] = True,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the running instance of this name.")] = False,
    require_gpu: Annotated[bool, typer.Option(help="Fail if the engine falls back to the CPU.")] = True,
    offload: Offload = False,
    client: ForAgents = None,
    weights: Annotated[Path | None, typer.Option("--weights", metavar="FOLDER", help=_WEIGHTS)] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    api_key_file: Annotated[Path | None, typer.Option(metavar="FILE", help=_KEY_FILE)] = None,
    heal: Heal = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and the command; start nothing.")] = False,
    supervise: Annotated[bool, typer.Option("--supervise", help="Restart it when it crashes or hangs.")] = False,
    idle_stop: Annotated[str | None, typer.Option(metavar="TIME", help="Unload the model when idle: 30m.")] = None,
    adopt: Annotated[bool, typer.Option("--adopt", help="Use the Ollama server that is already running.")] = False,
    gateway: Annotated[bool, typer.Option("--gateway", help="Put mscli's gateway before llama.cpp or vLLM.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Leave out the gateway before Ollama or mistral.rs.")] = False,
    template: Annotated[str | None, typer.Option(metavar="gguf", help=_TEMPLATE)] = None,
    install: Annotated[bool, typer.Option(help="Install the engine if it is missing.")] = True,
    installed_only: Annotated[bool, typer.Option("--installed-only", help="Use installed engines only.")] = False,
    check: Annotated[bool, typer.Option(help="Ask the model one short question at the end.")] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", envvar="MSCLI_YES", help="Do not ask for confirmation.")] = False,
    events: Events = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Start a model: the given profile, or the best fit."""
    given = {name: value for name, value in locals().items() if name != "ctx"}
    given["profile"] = typed_profile(ctx, profile, file)
    start(open_screen(ctx, json or events), Wishes(**given))


def restart(
    ctx: typer.Context,
    name: Instance = None,
    timeout: TimeoutS = 1800.0,
    supervise: Annotated[bool | None, typer.Option(help="Restart it when it crashes (default: as before).")] = None,
    heal: Heal = True,
    json: Json = False,
) -> None:
    """Stop an instance and start it again with the same options.

    The port stays the same. Also starts an instance that crashed or was stopped.
    """
    from mscli.cli.progress import StartProgress
    from mscli.cli.starting import report
    from mscli.frozen import replace
    from mscli.instances.records import Records, the_one
    from mscli.lifecycle.healing import restart as again
    from mscli.lifecycle.progress import Patience
    from mscli.paths import places

    screen = open_screen(ctx, json)
    record = the_one(Records(places()), name, "mscli restart", dead=True)
    if supervise is not None:
        record = replace(record, request=replace(record.request, supervise=supervise))
    with StartProgress(screen) as progress:
        done = again(record, places(), Patience(timeout_s=timeout), progress, heal)
    report(screen, done)


def down(
    ctx: typer.Context,
    name: Instance = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Stop every instance.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="Remove their records and logs as well.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Stop it even if unreadable or not responding.")] = False,
    json: Json = False,
) -> None:
    """Stop an instance and free its GPU memory.

    Stops the whole process group, then waits until the port and the GPU memory are free. Stopping what is not running
    is not an error.
    """
    from mscli.instances.json_values import to_json
    from mscli.instances.process import alive
    from mscli.instances.records import Records
    from mscli.instances.store import unreadable
    from mscli.lifecycle.shutdown import stop, stop_start, stop_unreadable, survived
    from mscli.paths import places

    screen = open_screen(ctx, json)
    records = Records(places())
    starts = _starts(records, name, all_)
    meant = starts[0].name if starts and not all_ else name
    chosen, damaged = _chosen(records, meant, all_)
    stopped = [stop(record, records, screen.note, purge, force) for record in chosen]
    stopped += [stop_start(each, records, screen.note) for each in starts if alive(each.by)]
    if force:
        stopped += [stop_unreadable(item, records, screen.note) for item in damaged]
    left = [item for item in stopped if item.survivors]
    if purge:
        _purge(records, name, all_, [item.name for item in left])
    if left:
        raise survived(left)
    if damaged and not force:
        raise unreadable(damaged[0])
    if json:
        screen.data({"stopped": to_json(stopped)})
    else:
        _show_stopped(screen, stopped, name, records)


def _starts(records: Records, name: str | None, all_: bool) -> tuple[Fetching, ...]:
    """The starts that still fetch weights and are to be stopped: those of the name, all, or of the only name there is.

    Raises USAGE where a name is needed to tell several apart.
    """
    from mscli.instances.fetching import all_fetching, fetching
    from mscli.instances.records import running
    from mscli.instances.store import check_name

    found = fetching(records, check_name(name)) if name is not None else all_fetching(records)
    names = {each.name for each in found}
    if name is None and not all_ and names:
        names |= {record.name for record in records.all()[0] if running(record)}
        if len(names) > 1:
            several = ", ".join(sorted(names))
            hint = f"Name one: mscli down {min(names)}. All of them: mscli down --all"
            raise MscliError(Code.USAGE, f"several instances are running or starting: {several}", hint)
    return found


def _chosen(records: Records, name: str | None, all_: bool) -> tuple[list[Record], list[Unreadable]]:
    """The records of what is to be stopped: the named one, all, or the only one that runs; and those that cannot be
    read, of which something may run.

    One whose processes have all died was not stopped either: its temporary files are still there. Nor is one whose
    stop was noted and whose temporary files an mscli that was killed left behind.
    """
    from mscli.instances.records import running, the_one
    from mscli.instances.store import Unreadable, check_name

    def unfinished(record: Record) -> bool:
        return record.stopped_at is None or records.is_stopping(record.name)

    if name is not None and all_:
        raise MscliError(Code.USAGE, "a name and --all cannot be used together", "Use one of them.")
    if name is not None:
        record = records.load(check_name(name))
        if isinstance(record, Unreadable):
            return [], [record]
        return ([record] if record and unfinished(record) else []), []
    good, damaged = records.all()
    left = list(filter(unfinished, good))
    return (left if all_ or not any(map(running, left)) else [the_one(records, None, "mscli down")]), list(damaged)


def _purge(records: Records, name: str | None, all_: bool, surviving: list[str]) -> None:
    """Remove what is kept of stopped instances; an unreadable record is never deleted."""
    from mscli.lifecycle.shutdown import purge

    for record in records.all()[0]:
        if (all_ or name in (None, record.name)) and record.stopped_at and record.name not in surviving:
            purge(record, records)


def _show_stopped(screen: Screen, stopped: list[Stopped], name: str | None, records: Records) -> None:
    from mscli.cli.layout import size
    from mscli.instances.records import running

    if not stopped:
        others = ", ".join(record.name for record in records.all()[0] if running(record)) if name else ""
        screen.note(f"{name} is not running" if name else "nothing is running")
        if others:
            screen.note(f"Running: {others}")
    for item in stopped:
        if item.fetching:
            screen.text(f"{item.name}: its start was stopped during the download; what was downloaded is kept")
            continue
        text = f"{item.name} stopped after {item.seconds:.1f} s ({item.signal or 'already dead'})"
        text += ", port free" if item.port_free else ", its port is still in use"
        if item.memory_returned_bytes is not None:
            text += f", {size(item.memory_returned_bytes)} of GPU memory freed after {item.memory_seconds:.1f} s"
        screen.text(text)


_services = typer.Typer()
_COLUMNS = (Column("NAME"), Column("AT BOOT"), Column("STATE"), Column("UNIT", 1))

ServiceName = Annotated[str, typer.Argument(metavar="NAME", help="The instance.")]


@_services.callback(invoke_without_command=True, epilog="Examples: mscli service  |  mscli service install small-q4")
def service(ctx: typer.Context, json: Json = False) -> None:
    """Run an instance as a systemd service that starts at boot.

    Without a command: show the services that are installed.
    """
    if ctx.invoked_subcommand is None:
        from mscli.lifecycle import service as services

        _show(open_screen(ctx, json), services.services())


@_services.command("install", epilog="Example: mscli service install small-q4")
def install(ctx: typer.Context, name: Instance = None, json: Json = False) -> None:
    """Make an instance a service: starts now and at every boot.

    It keeps the options that it was started with.
    """
    from mscli.instances.records import Records, the_one
    from mscli.lifecycle import service as services
    from mscli.paths import places

    screen = open_screen(ctx, json)
    record = the_one(Records(places()), name, "mscli service install", dead=True)
    screen.note(f"starting {record.name} as a systemd service")
    _show(screen, (services.install(record),))


@_services.command("remove", epilog="Example: mscli service remove small-q4")
def remove(ctx: typer.Context, name: ServiceName, json: Json = False) -> None:
    """Stop a service and remove it.

    `mscli restart` still starts the instance.
    """
    from mscli.instances.store import check_name
    from mscli.lifecycle import service as services

    screen = open_screen(ctx, json)
    unit = services.remove(check_name(name))
    if unit is None:
        raise MscliError(Code.NOT_RUNNING, f"there is no service for {name!r}", "To list them: mscli service status")
    if json:
        screen.data({"removed": str(unit)})
    else:
        screen.text(f"removed {unit}")


@_services.command("status", epilog="Example: mscli service status")
def status(ctx: typer.Context, name: Instance = None, json: Json = False) -> None:
    """Show installed services and whether systemd runs them."""
    from mscli.instances.store import check_name
    from mscli.lifecycle import service as services

    screen = open_screen(ctx, json)
    _show(screen, (services.status(check_name(name)),) if name else services.services())


@_services.command("run", hidden=True)
def run(ctx: typer.Context, name: ServiceName) -> int:
    """Start an instance for systemd, and leave its companion as the service's main process."""
    from mscli.instances.store import check_name
    from mscli.lifecycle import service as services

    open_screen(ctx, False)
    return services.run(check_name(name))


def _show(screen: Screen, found: tuple[object, ...]) -> None:
    from mscli.instances.json_values import to_json
    from mscli.lifecycle.service import Service

    known = [service for service in found if isinstance(service, Service)]
    if screen.json_mode:
        screen.data({"services": to_json(known)})
        return
    if not known:
        screen.note("no service is installed. To create one: mscli service install NAME")
        return
    screen.table(_COLUMNS, [(it.name, it.enabled, it.active, str(it.unit)) for it in known])
    if any(it.lingers is False for it in known):
        screen.note("services start when you log in; to start them at boot: loginctl enable-linger", "yellow")


COMMANDS: Commands = {
    "up": (up, _EPILOG),
    "restart": (restart, "Examples: mscli restart  |  mscli restart rehearsal"),
    "down": (down, "Examples: mscli down  |  mscli down rehearsal  |  mscli down --all --purge"),
    "service": _services,
}
