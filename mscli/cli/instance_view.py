"""How instances are shown: the JSON that scripts rely on, and a table for people.

No Typer here: scripts repeat `mscli status --json` every second.
"""

from __future__ import annotations

import time
from typing import Any

from mscli.cli.screen import Screen
from mscli.cli.size import ago, iso
from mscli.errors import Code, Exit, MscliError
from mscli.instances.state import RUNNING, STOPPED, Instance, look
from mscli.instances.store import Store, Unreadable, unreadable


def instance_json(instance: Instance) -> dict[str, Any]:
    """The fields of `mscli status --json`."""
    return {
        "name": instance.name,
        "profile": instance.profile,
        "engine": instance.engine,
        "state": instance.state,
        "pid": instance.pid,
        "owner": instance.owner,
        "port": instance.port,
        "base_url": instance.base_url,
        "model": instance.model,
        "context": instance.context,
        "gpus": list(instance.gpus),
        "since": iso(instance.since),
        "log": str(instance.log),
        "stand_in": instance.stand_in,
        "orphans": list(instance.orphans),
        "container": instance.container,
        "orphaned": instance.orphaned,
    }


COLUMNS = ("NAME", "STATE", "PROFILE", "ENGINE", "GPUS", "CONTEXT", "PID", "SINCE", "URL")


def instance_row(instance: Instance) -> tuple[str, ...]:
    """One row of `mscli status`, by COLUMNS."""
    return (
        instance.name,
        instance.state,
        instance.profile,
        instance.engine,
        ",".join(map(str, instance.gpus)) or "cpu",
        str(instance.context),
        "not ours" if instance.pid is None else str(instance.pid),
        ago(time.time() - instance.since),
        instance.base_url,
    )


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
