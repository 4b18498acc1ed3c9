"""`mscli status`: what runs, and whether it answers."""

from __future__ import annotations

from typing import Annotated

import typer

from mscli.cli.options import Instance, Json
from mscli.cli.screen import open_screen


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status", epilog="Examples: mscli status  |  mscli status --watch  |  mscli status rehearsal --json")(
        status
    )


def status(
    ctx: typer.Context,
    name: Instance = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Show stopped instances too.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every 2 s until Ctrl-C.")] = False,
    json: Json = False,
) -> int:
    """Show instances and their state.

    Exits with 3 when nothing is running.
    """
    from mscli.cli.instance_view import show_status, watch_status
    from mscli.instances.store import Store
    from mscli.paths import places

    show = watch_status if watch else show_status
    return show(open_screen(ctx, json), Store(places()), name, all_)
