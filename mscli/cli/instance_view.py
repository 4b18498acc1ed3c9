"""How instances are shown: the JSON that scripts rely on; for people a block for one, a table for several.

No Typer here: scripts repeat `mscli status --json` every second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mscli.cli.layout import Column, ago, count, iso, size, styled
from mscli.cli.screen import Screen
from mscli.errors import Code, Exit, MscliError
from mscli.frozen import asdict, frozen
from mscli.instances.fetching import Fetching, all_fetching, fetching
from mscli.instances.state import CRASHED, READY, RUNNING, STARTING, STOPPED, UNLOADED, UNRESPONSIVE, Instance, look
from mscli.instances.store import Store, Unreadable, unreadable

_STYLES = {
    **{READY: "bold green", STARTING: "yellow", UNLOADED: "yellow"},
    **{UNRESPONSIVE: "bold yellow", CRASHED: "bold red", STOPPED: "dim"},
}
_WATCH_S = 2.0
_COLUMNS = (
    *(Column("NAME"), Column("STATE"), Column("URL"), Column("UPTIME", 1), Column("GPUS", 3)),
    *(Column("CONTEXT", 2, right=True), Column("ENGINE", 4), Column("PROFILE", 5), Column("PID", 6, right=True)),
)


@frozen
class Seen:
    """The instances as they are now, each with its record as JSON data; the records that cannot be read; and the starts
    that still fetch weights."""

    instances: tuple[tuple[Instance, Mapping[str, Any]], ...]
    unreadable: tuple[Unreadable, ...]
    fetching: tuple[Fetching, ...] = ()

    @property
    def running(self) -> bool:
        """Whether one of them runs, or will once its weights are here."""
        return bool(self.fetching) or any(instance.state in RUNNING for instance, _ in self.instances)


def instance_json(instance: Instance) -> dict[str, Any]:
    """The fields of `mscli status --json`: those of Instance."""
    return {**asdict(instance), "since": iso(instance.since), "log": str(instance.log)}


def _fetching_json(each: Fetching) -> dict[str, Any]:
    return {
        "name": each.name,
        "profile": each.profile,
        "engine": each.engine,
        "pid": each.by.pid,
        "done_bytes": each.done_bytes,
        "total_bytes": each.total_bytes,
    }


def show_status(screen: Screen, store: Store, name: str | None = None, all_: bool = False) -> Exit:
    """Show the instances (or the named one) and return the exit code. Waits at most about 2 s per silent endpoint."""
    return show_seen(screen, look_at(store, name, all_))


def show_seen(screen: Screen, seen: Seen) -> Exit:
    """Show instances and what cannot be read; the exit code."""
    for item in seen.unreadable:
        screen.note(f"warning: cannot read the record of {item.name!r}: {item.reason} ({item.path})", "yellow")
    if screen.json_mode:
        damaged = [{"name": item.name, "path": str(item.path), "reason": item.reason} for item in seen.unreadable]
        fetching = [_fetching_json(each) for each in seen.fetching]
        shown = [instance_json(instance) for instance, _ in seen.instances]
        screen.data({"instances": shown, "unreadable": damaged, "fetching": fetching})
    elif not seen.running and not seen.instances:
        screen.note("nothing is running. To start the best model for this machine: mscli up")
    else:
        show_instances(screen, seen)
    return Exit.DONE if seen.running else Exit.NOT_RUNNING


def watch_status(screen: Screen, store: Store, name: str | None = None, all_: bool = False) -> Exit:
    """Show the instances again every 2 s until Ctrl-C; the terminal is then as it was before. Raises USAGE."""
    if not screen.live or screen.width is None:
        raise MscliError(Code.USAGE, "--watch needs a terminal", "For scripts: mscli status --json")
    code = Exit.DONE
    with screen.whole() as cleared:
        try:
            while screen.lost is None:
                seen = look_at(store, name, all_)
                cleared()
                screen.line(styled(f"{time.strftime('%H:%M:%S')}  every {_WATCH_S:.0f} s, Ctrl-C to stop", "dim"))
                code = show_seen(screen, seen)
                time.sleep(_WATCH_S)
        except KeyboardInterrupt:
            pass
    return code


def look_at(store: Store, name: str | None = None, all_: bool = False) -> Seen:
    """The instances (or the named one) as they are now; those that were stopped only with `all_` or by name.

    Raises NOT_RUNNING or RECORD_UNREADABLE for the named one.
    """
    raw = [store.raw(item) for item in (store.names() if name is None else (name,))]
    under_way = all_fetching(store) if name is None else fetching(store, name)
    if name is not None and raw == [None] and not under_way:
        raise MscliError(Code.NOT_RUNNING, f"there is no instance {name!r}", "To see what is running: mscli status")
    looked = [(item if isinstance(item, Unreadable) else look(item, store), item) for item in raw if item is not None]
    broken = tuple(found for found, _ in looked if isinstance(found, Unreadable))
    if name is not None and broken:
        raise unreadable(broken[0])
    seen = [(found, item) for found, item in looked if isinstance(found, Instance) and isinstance(item, Mapping)]
    wanted = [pair for pair in seen if all_ or name is not None or pair[0].state != STOPPED]
    return Seen(tuple(wanted), broken, under_way)


def show_instances(screen: Screen, seen: Seen) -> None:
    """One instance as a block with everything that is known of it, several as a table."""
    if len(seen.instances) == 1:
        _show_one(screen, *seen.instances[0])
    elif seen.instances:
        screen.table(_COLUMNS, [_row(instance) for instance, _ in seen.instances])
    for each in seen.fetching:
        size_is = f" of {size(each.total_bytes)}" if each.total_bytes else ""
        who = f"{each.engine}, profile {each.profile}, PID {each.by.pid}"
        screen.line(styled(each.name, "bold"), "  ", styled(f"{each.words}{size_is}", "yellow"), f" ({who})")
    for instance, _ in seen.instances:
        _warn(screen, instance)


def _row(instance: Instance) -> tuple[str, ...]:
    return (
        instance.name,
        _state(instance),
        instance.base_url,
        _since(instance) if instance.state in RUNNING else "",
        _gpus(instance),
        f"{instance.context:,}",
        instance.engine,
        instance.profile,
        "" if instance.pid is None else str(instance.pid),
    )


def _show_one(screen: Screen, instance: Instance, raw: Mapping[str, Any]) -> None:
    plan, version = raw["plan"], raw.get("engine_version") or ""
    process = f", PID {instance.pid}" if instance.pid else f", not started by mscli ({instance.owner})"
    behind = instance.engine_port is not None and instance.state in RUNNING
    for_whom = count(int(plan.get("users") or 1), "user")
    screen.line(styled(instance.name, "bold"), "  ", _state(instance))
    screen.fields(
        (
            ("API", f"{instance.base_url} (model {instance.model})" if instance.state in RUNNING else ""),
            ("model", str(raw["title"])),
            ("engine", f"{instance.engine} {version}".strip() + (process if instance.state in RUNNING else "")),
            ("engine port", f"{instance.engine_port} (on 127.0.0.1 only, without an API key)" if behind else ""),
            ("context", f"{_context(instance)}, {plan.get('kv_type')} KV cache, {for_whom}"),
            ("memory", _memory(instance, plan)),
            ("container", instance.container or ""),
            ("uptime" if instance.state in RUNNING else "started", _since(instance)),
            ("last request", _last_request(instance)),
            ("idle", f"unloads after {ago(instance.idle_stop_s)} without a request" if instance.idle_stop_s else ""),
            ("restarts", str(instance.restarts) if instance.last_end else ""),
            ("last exit", instance.last_end or ""),
            ("log", str(instance.log)),
        )
    )
    if instance.stand_in:
        screen.paragraph("This is a scripted stand-in on a real engine, not a language model.", "  ", style="dim")
    if instance.state == STOPPED:
        screen.note(f"To start it again: mscli restart {instance.name}")


def _state(instance: Instance) -> str:
    return styled(instance.state, _STYLES[instance.state])


def _since(instance: Instance) -> str:
    past = ago(time.time() - instance.since)
    return past if instance.state in RUNNING else f"{past} ago"


def _gpus(instance: Instance) -> str:
    return ",".join(map(str, instance.gpus)) or "CPU"


def _context(instance: Instance) -> str:
    """The context in force, where the engine told it."""
    served = instance.served_context
    planned = f" ({instance.context:,} planned)" if served not in (None, instance.context) else ""
    return f"{served or instance.context:,} tokens{planned}"


def _last_request(instance: Instance) -> str:
    from mscli.instances.log import last_request  # only people are shown it

    last = last_request(instance.log, instance.since) if instance.state in RUNNING else None
    return "" if last is None else f"{ago(max(0.0, time.time() - last))} ago"


def _memory(instance: Instance, plan: Mapping[str, Any]) -> str:
    """What it took, as measured when it became ready; else what was planned; and where."""
    if measured := {gpu: taken for gpu, taken in (instance.gpu_bytes or {}).items() if taken > 0}:
        share = instance.gpu_share
        where = ", ".join(f"{size(taken)} on GPU {gpu}" for gpu, taken in measured.items())
        return where if share is None else f"{where}, {share:.0%} of the model on the GPU"
    return _planned(plan)


def _planned(plan: Mapping[str, Any]) -> str:
    parts = ("weights", "projector", "kv", "compute", "graphs", "runtime", "kv_spare")
    taken = [(gpu["gpu"], sum(int(gpu.get(f"{part}_bytes") or 0) for part in parts)) for gpu in plan["memory"]]
    host = int(plan.get("host_bytes") or 0)
    if not taken:
        return f"{size(host)} of host memory (planned), on the CPU"
    where = ", ".join(f"{size(taken_bytes)} on GPU {gpu}" for gpu, taken_bytes in taken)
    return f"{where} (planned)"


def _warn(screen: Screen, instance: Instance) -> None:
    """What has to be done about an instance that is not well."""
    name, pids = instance.name, instance.orphans
    if instance.orphaned:
        said, todo = f"left its container {instance.container} running", {"stop it": f"mscli down {name}"}
    elif pids:
        left = f"{count(len(pids), 'process', 'processes')}: {', '.join(map(str, pids))}"
        said, todo = f"left {left}", {"stop them": f"mscli down {name}"}
    elif instance.state == CRASHED:
        said, todo = "has crashed", {"why": f"mscli doctor --log {name}", "start it again": f"mscli restart {name}"}
    elif instance.state == UNRESPONSIVE:
        said, todo = "does not answer", {"its log": f"mscli logs {name} -n 30"}
    else:
        said, todo = "", {}
    if instance.note:
        screen.note(f"{name}: {instance.note}", "yellow")
    elif said:
        screen.note(
            "\n".join([f"{name} {said}", *(f"  {what}: {command}" for what, command in todo.items())]), "yellow"
        )
