"""`mscli status`: what runs, and whether it answers."""

from __future__ import annotations

from typing import Annotated

import typer

from mscli.cli.options import Instance, Json
from mscli.cli.screen import Screen, open_screen
from mscli.errors import Code, Exit, MscliError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status", epilog="Examples: mscli status  |  mscli status rehearsal --json")(status)


def status(
    ctx: typer.Context,
    name: Instance = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Also those that were stopped.")] = False,
    json: Json = False,
) -> int:
    """Show the instances and their state; exit code 3 when nothing is running."""
    from mscli.cli.instance_view import instance_json
    from mscli.lifecycle.instance import RUNNING, STOPPED, look
    from mscli.lifecycle.records import Records
    from mscli.paths import places

    screen = open_screen(ctx, json)
    records = Records(places())
    found, broken = records.all()
    if name is not None:
        found, broken = _only(records, name), ()
    seen = [look(record, records) for record in found]
    if not all_ and name is None:
        seen = [instance for instance in seen if instance.state != STOPPED]
    for item in broken:
        screen.note(f"warning: the record of {item.name!r} cannot be read: {item.reason} ({item.path})", "yellow")
    if json:
        unreadable = [{"name": item.name, "path": str(item.path), "reason": item.reason} for item in broken]
        screen.data({"instances": [instance_json(instance) for instance in seen], "unreadable": unreadable})
    else:
        _show(screen, seen)
    return Exit.DONE if any(instance.state in RUNNING for instance in seen) else Exit.NOT_RUNNING


def _only(records, name):  # type: ignore[no-untyped-def]
    record = records.get(name)
    if record is None:
        raise MscliError(Code.NOT_RUNNING, f"there is no instance {name!r}", "What runs: mscli status")
    return (record,)


def _show(screen: Screen, seen) -> None:  # type: ignore[no-untyped-def]
    from mscli.cli.instance_view import COLUMNS, instance_row

    if not seen:
        screen.note("nothing is running. Start something: mscli up, or mscli up rehearsal")
        return
    screen.table(COLUMNS, [instance_row(instance) for instance in seen])
    for instance in seen:
        if instance.stand_in:
            screen.text(f"{instance.name} is a scripted stand-in on a real engine, not a language model.")
        if instance.orphans:
            pids = ", ".join(map(str, instance.orphans))
            screen.note(
                f"{instance.name} left processes behind: {pids}. Clean up: mscli down {instance.name}", "yellow"
            )
        elif instance.state == "crashed":
            screen.note(f"{instance.name} died. See: mscli logs {instance.name}", "yellow")
