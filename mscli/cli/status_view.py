"""What `mscli status` shows. No Typer here: scripts repeat `mscli status --json` every second."""

from __future__ import annotations

from mscli.cli.instance_view import COLUMNS, instance_json, instance_row
from mscli.cli.screen import Screen
from mscli.errors import Code, Exit, MscliError
from mscli.instances.state import RUNNING, STOPPED, Instance, look
from mscli.instances.store import Store, Unreadable, unreadable


def show_status(screen: Screen, store: Store, name: str | None = None, all_: bool = False) -> Exit:
    """Show the instances (or the named one) and return the exit code. Waits at most about 2 s per silent endpoint."""
    seen, broken = _look(store, name)
    if name is not None and broken:
        raise unreadable(broken[0])
    if not all_ and name is None:
        seen = [instance for instance in seen if instance.state != STOPPED]
    for item in broken:
        screen.note(f"warning: the record of {item.name!r} cannot be read: {item.reason} ({item.path})", "yellow")
    if screen.json_mode:
        damaged = [{"name": item.name, "path": str(item.path), "reason": item.reason} for item in broken]
        screen.data({"instances": [instance_json(instance) for instance in seen], "unreadable": damaged})
    else:
        _show(screen, seen)
    return Exit.DONE if any(instance.state in RUNNING for instance in seen) else Exit.NOT_RUNNING


def _look(store: Store, name: str | None) -> tuple[list[Instance], list[Unreadable]]:
    """The instances (or the named one) as they are now, and the records that cannot be read."""
    raw = [store.raw(item) for item in (store.names() if name is None else (name,))]
    if name is not None and raw == [None]:
        raise MscliError(Code.NOT_RUNNING, f"there is no instance {name!r}", "What runs: mscli status")
    looked = [item if isinstance(item, Unreadable) else look(item, store) for item in raw if item is not None]
    seen = [item for item in looked if not isinstance(item, Unreadable)]
    return seen, [item for item in looked if isinstance(item, Unreadable)]


def _show(screen: Screen, seen: list[Instance]) -> None:
    if not seen:
        screen.note("nothing is running. Start something: mscli up, or mscli up rehearsal")
        return
    screen.table(COLUMNS, [instance_row(instance) for instance in seen])
    for instance in seen:
        if instance.stand_in:
            screen.text(f"{instance.name} is a scripted stand-in on a real engine, not a language model.")
        if instance.orphaned:
            screen.note(
                f"{instance.name} left its container behind: {instance.container}. Stop it: mscli down {instance.name}",
                "yellow",
            )
        elif instance.orphans:
            pids = ", ".join(map(str, instance.orphans))
            screen.note(
                f"{instance.name} left processes behind: {pids}. Stop them: mscli down {instance.name}", "yellow"
            )
        elif instance.state == "crashed":
            screen.note(f"{instance.name} died. See: mscli logs {instance.name}", "yellow")
