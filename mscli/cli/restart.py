"""`mscli restart`: stop an instance and start it again as it was asked for."""

from __future__ import annotations

from typing import Annotated

import typer

from mscli.cli.options import Heal, Instance, Json, TimeoutS
from mscli.cli.screen import open_screen


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("restart", epilog="Examples: mscli restart  |  mscli restart rehearsal")(restart)


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
    from dataclasses import replace

    from mscli.cli.progress import StartProgress
    from mscli.cli.starting import report
    from mscli.instances.records import Records, the_one
    from mscli.lifecycle.healing.attempts import restart as again
    from mscli.lifecycle.waiting import Patience
    from mscli.paths import places

    screen = open_screen(ctx, json)
    record = the_one(Records(places()), name, dead=True)
    if supervise is not None:
        record = replace(record, request=replace(record.request, supervise=supervise))
    with StartProgress(screen) as progress:
        done = again(record, places(), Patience(timeout_s=timeout), progress, heal)
    report(screen, done)
