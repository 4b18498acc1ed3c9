"""`mscli down`: stop instances, and wait until their ports and GPU memory are back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.screen import Screen, open_screen
from mscli.cli.tree import Commands, Instance, Json
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.instances.fetching import Fetching
    from mscli.instances.records import Record, Records
    from mscli.instances.store import Unreadable
    from mscli.lifecycle.shutdown import Stopped


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
        _show(screen, stopped, name, records)


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
            raise MscliError(Code.USAGE, f"several instances are running or starting: {several}", "Name one, or --all.")
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
    return (left if all_ or not any(map(running, left)) else [the_one(records, None)]), list(damaged)


def _purge(records: Records, name: str | None, all_: bool, surviving: list[str]) -> None:
    """Remove what is kept of stopped instances; an unreadable record is never deleted."""
    from mscli.lifecycle.shutdown import purge

    for record in records.all()[0]:
        if (all_ or name in (None, record.name)) and record.stopped_at and record.name not in surviving:
            purge(record, records)


def _show(screen: Screen, stopped: list[Stopped], name: str | None, records: Records) -> None:
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


COMMANDS: Commands = {"down": (down, "Examples: mscli down  |  mscli down rehearsal  |  mscli down --all --purge")}
