"""`mscli restart`: stop an instance and start it again as it was asked for."""

from __future__ import annotations

import typer

from mscli.cli.options import Heal, Instance, Json, TimeoutS
from mscli.cli.screen import open_screen


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("restart", epilog="Examples: mscli restart  |  mscli restart rehearsal")(restart)


def restart(
    ctx: typer.Context, name: Instance = None, timeout: TimeoutS = 1800.0, heal: Heal = True, json: Json = False
) -> None:
    """Stop an instance if it runs, then start it again on the same port with the same overrides."""
    from mscli.cli.progress import StartProgress
    from mscli.cli.up import report
    from mscli.instances.records import Records, the_one
    from mscli.lifecycle.healing.attempts import restart as again
    from mscli.lifecycle.readiness import Patience
    from mscli.paths import places

    screen = open_screen(ctx, json)
    record = the_one(Records(places()), name, dead=True)
    with StartProgress(screen) as progress:
        done = again(record, places(), Patience(timeout_s=timeout), progress, heal)
    report(screen, done)
