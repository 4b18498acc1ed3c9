"""`mscli up`, `mscli restart` and `mscli service`: the commands that start an instance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    from mscli.lifecycle.healing.attempts import restart as again
    from mscli.lifecycle.progress import Patience
    from mscli.paths import places

    screen = open_screen(ctx, json)
    record = the_one(Records(places()), name, dead=True)
    if supervise is not None:
        record = replace(record, request=replace(record.request, supervise=supervise))
    with StartProgress(screen) as progress:
        done = again(record, places(), Patience(timeout_s=timeout), progress, heal)
    report(screen, done)


_services = typer.Typer()
_INSTALL_EPILOG = "Example: mscli service install small-q4"
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


@_services.command("install", epilog=_INSTALL_EPILOG)
def install(ctx: typer.Context, name: Instance = None, json: Json = False) -> None:
    """Make an instance a service: starts now and at every boot.

    It keeps the options that it was started with.
    """
    from mscli.instances.records import Records, the_one
    from mscli.lifecycle import service as services
    from mscli.paths import places

    screen = open_screen(ctx, json)
    record = the_one(Records(places()), name, dead=True)
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
    "service": _services,
}
