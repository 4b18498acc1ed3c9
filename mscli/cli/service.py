"""`mscli service`: instances as services of the user's systemd."""

from __future__ import annotations

from typing import Annotated

import typer

from mscli.cli.layout import Column
from mscli.cli.options import Instance, Json
from mscli.cli.screen import Screen, open_screen
from mscli.errors import Code, MscliError

app = typer.Typer()
_EPILOG = "Example: mscli service install small-q4"
_COLUMNS = (Column("NAME"), Column("AT BOOT"), Column("STATE"), Column("UNIT", 1))

Name = Annotated[str, typer.Argument(metavar="NAME", help="The instance.")]


def register(program: typer.Typer) -> None:
    """Add the commands."""
    program.add_typer(app, name="service")


@app.callback(invoke_without_command=True, epilog="Examples: mscli service  |  mscli service install small-q4")
def service(ctx: typer.Context, json: Json = False) -> None:
    """Run an instance as a systemd service that starts at boot.

    Without a command: show the services that are installed.
    """
    if ctx.invoked_subcommand is None:
        from mscli.lifecycle import service as services

        _show(open_screen(ctx, json), services.services())


@app.command("install", epilog=_EPILOG)
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


@app.command("remove", epilog="Example: mscli service remove small-q4")
def remove(ctx: typer.Context, name: Name, json: Json = False) -> None:
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


@app.command("status", epilog="Example: mscli service status")
def status(ctx: typer.Context, name: Instance = None, json: Json = False) -> None:
    """Show installed services and whether systemd runs them."""
    from mscli.instances.store import check_name
    from mscli.lifecycle import service as services

    screen = open_screen(ctx, json)
    _show(screen, (services.status(check_name(name)),) if name else services.services())


@app.command("run", hidden=True)
def run(ctx: typer.Context, name: Name) -> int:
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
