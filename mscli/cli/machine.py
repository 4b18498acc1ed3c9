"""`mscli gpus` and `mscli engines`: what this machine has, and getting an engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.layout import Column, bar, count, size, styled
from mscli.cli.screen import Screen, open_screen
from mscli.cli.tree import Commands, Events, Json

if TYPE_CHECKING:
    from mscli.engines.table import EngineState
    from mscli.inventory.inventory import Gpu, Holder, Host, Inventory, Link, Problem

_MOST_ROWS = 8  # of each table; --all shows the rest
_COLUMNS = (
    *(Column("GPU"), Column("NAME"), Column("FREE"), Column("USED", 9), Column("LOAD", 3, right=True)),
    *(Column("TEMP", 4, right=True), Column("POWER", 2, right=True), Column("CC", 5, right=True)),
)
_MIG = (Column("MIG"), Column("PROFILE"), Column("FREE"), Column("UUID", 1))
_PROCESSES = (
    Column("GPU"),
    Column("PID", right=True),
    Column("MEMORY"),
    Column("USER", 1),
    Column("COMMAND", 2, clip=True),
)
_PATHS = {
    "internal": "INT", "single-switch": "PIX", "multiple-switches": "PXB", "host-bridge": "PHB", "node": "NODE",
    "system": "SYS", "unknown": "?",
}  # fmt: skip  # as nvidia-smi topo -m names them


def gpus(
    ctx: typer.Context,
    all_: Annotated[bool, typer.Option("--all", "-a", help="List every MIG device and process.")] = False,
    json: Json = False,
) -> None:
    """Show GPUs, free memory and the processes that use the rest."""
    from mscli.inventory.detect import detect
    from mscli.paths import hub_cache

    screen = open_screen(ctx, json)
    inventory = detect(hub_cache())
    if json:
        screen.data(inventory)
        return
    _show_driver(screen, inventory)
    if inventory.gpus:
        screen.table(_COLUMNS, [_row(gpu) for gpu in inventory.gpus])
    _show_some(screen, _MIG, [row for gpu in inventory.gpus for row in _mig_rows(gpu)], "MIG device", all_)
    holders = [(gpu, holder) for gpu in inventory.gpus for holder in gpu.holders]
    _show_some(screen, _PROCESSES, [_process_row(gpu, holder) for gpu, holder in holders], "process", all_)
    _show_links(screen, inventory)
    _show_problems(screen, inventory)
    _show_host(screen, inventory.host)


def _show_driver(screen: Screen, inventory: Inventory) -> None:
    if inventory.nvml is not None:
        screen.paragraph(f"no GPU found: {inventory.nvml.message}", style="yellow")
        screen.paragraph("To find out why: mscli doctor")
    else:
        screen.line(f"NVIDIA driver {inventory.driver or 'unknown'}, CUDA {inventory.cuda or 'unknown'}")
    if inventory.visible_devices is not None:
        screen.paragraph(f"CUDA_VISIBLE_DEVICES={inventory.visible_devices} hides the other GPUs", style="yellow")


def _row(gpu: Gpu) -> tuple[str, ...]:
    known = gpu.memory_total_bytes and gpu.memory_used_bytes is not None
    share = (gpu.memory_used_bytes or 0) / (gpu.memory_total_bytes or 1)
    return (
        f"{gpu.index}{'' if gpu.visible or _lost(gpu) else ' (hidden)'}",
        styled("LOST", "bold red") if _lost(gpu) else gpu.name,
        "host memory" if gpu.unified_memory else _free(gpu.memory_free_bytes, gpu.memory_total_bytes),
        f"{bar(share, 12)} {share:.0%}" if known else "",
        "" if gpu.utilisation_percent is None else f"{gpu.utilisation_percent}%",
        "" if gpu.temperature_c is None else f"{gpu.temperature_c} C",
        "" if gpu.power_w is None else f"{gpu.power_w:.0f} W",
        gpu.compute_capability or "",
    )


def _lost(gpu: Gpu) -> bool:
    return any(problem.code == "GPU_IS_LOST" for problem in gpu.problems)


def _free(free: int | None, total: int | None) -> str:
    if free is None or total is None:
        return size(free if total is None else total) if (free or total) else ""
    whole, part = size(total), size(free)
    return f"{part.removesuffix(' GiB')} of {whole}" if whole.endswith("GiB") else f"{part} of {whole}"


def _mig_rows(gpu: Gpu) -> Iterable[tuple[str, ...]]:
    for part in gpu.mig.instances:
        free = _free(part.memory_free_bytes, part.memory_total_bytes)
        yield (f"{gpu.index}:{part.index}", part.name.rpartition(" ")[2], free, part.uuid)


def _process_row(gpu: Gpu, holder: Holder) -> tuple[str, ...]:
    inside = f" (container {holder.container[:12]})" if holder.container else ""
    known = holder.command or (holder.user and "unknown") or "(another container or user)"
    memory = "unknown" if holder.used_bytes is None else size(holder.used_bytes)
    return (str(gpu.index), str(holder.pid), memory, holder.user or "", f"{known}{inside}")


def _show_some(
    screen: Screen, columns: Sequence[Column], rows: Sequence[tuple[str, ...]], noun: str, all_: bool
) -> None:
    """A table of its own below the GPUs; the first rows of it unless `all_`."""
    if not rows:
        return
    shown = rows if all_ or len(rows) <= _MOST_ROWS + 1 else rows[:_MOST_ROWS]
    screen.line()
    screen.table(columns, shown)
    if len(shown) < len(rows):
        more = len(rows) - len(shown)
        screen.line(
            styled(
                f"{count(more, f'more {noun}', f'more {noun}es' if noun == 'process' else '')}: mscli gpus --all", "dim"
            )
        )


def _show_links(screen: Screen, inventory: Inventory) -> None:
    """How the GPUs are connected: one line where all pairs are alike, else a matrix as of `nvidia-smi topo -m`."""
    links = inventory.links
    kinds = {(link.nvlinks, link.path if not link.nvlinks else "", link.p2p) for link in links}
    if not links:
        return
    if len(kinds) == 1:
        pairs = "between all GPUs" if len(links) > 1 else f"between GPU {links[0].first} and GPU {links[0].second}"
        screen.paragraph(f"Links {pairs}: {_link(links[0])}")
        return
    numbers = sorted({number for link in links for number in (link.first, link.second)})
    cells = {pair: _short(link) for link in links for pair in ((link.first, link.second), (link.second, link.first))}
    screen.line()
    columns = [Column("LINKS"), *(Column(f"GPU{number}") for number in numbers)]
    screen.table(columns, [(f"GPU{one}", *(cells.get((one, other), "-") for other in numbers)) for one in numbers])
    screen.paragraph(
        "NV4: 4 NVLinks; PIX, PXB, PHB, NODE, SYS: PCIe, from near to far; *: no peer-to-peer", style="dim"
    )


def _link(link: Link) -> str:
    how = count(link.nvlinks, "NVLink") if link.nvlinks else f"PCIe ({link.path.replace('-', ' ')})"
    return f"{how}, {({True: 'peer-to-peer', False: 'no peer-to-peer', None: 'peer-to-peer unknown'})[link.p2p]}"


def _short(link: Link) -> str:
    name = f"NV{link.nvlinks}" if link.nvlinks else _PATHS.get(link.path, "?")
    return name if link.p2p is not False else f"{name}*"


def _in_words(problem: Problem) -> str:
    named = problem.message.startswith(problem.field)
    return problem.message if named else f"{problem.field}: {problem.message}"


def _show_problems(screen: Screen, inventory: Inventory) -> None:
    """What could not be read, once for all GPUs on which it is the same; what a card does not have is no problem."""
    found: dict[str, list[str]] = {}
    for gpu in inventory.gpus:
        if _lost(gpu):
            found.setdefault("the driver cannot reach it. Causes: mscli doctor --only gpu", []).append(str(gpu.index))
            continue
        for problem in gpu.problems:
            if problem.code != "NOT_SUPPORTED":
                found.setdefault(_in_words(problem), []).append(str(gpu.index))
    for problem in inventory.problems:
        screen.paragraph(f"! {_in_words(problem)}", "", "  ", "yellow")
    for message, where in found.items():
        screen.paragraph(f"! GPU {', '.join(where)}: {message}", "", "  ", "yellow")


def _show_host(screen: Screen, host: Host) -> None:
    ram = f"{_free(host.ram_available_bytes, host.ram_total_bytes)} memory free"
    kind = {"bare": ""}.get(host.surroundings, f"{host.surroundings}, ")
    screen.line()
    screen.paragraph(f"Host: {kind}{host.cpu_model}, {count(host.cpu_cores, 'core')}, {ram}", "", "  ")
    screen.paragraph(f"Disk for weights: {size(host.disk_free_bytes)} free at {host.disk_path}", "", "  ")


_engines = typer.Typer()
_EPILOG = "Examples: mscli engines  |  mscli engines --json  |  mscli engines install ollama"

_ENGINE_COLUMNS = (
    *(Column("ENGINE"), Column("VERSION"), Column("GPUS", 1), Column("CPU", 2), Column("VISION", 3)),
    *(Column("TOOLS", 4), Column("REASONING", 5), Column("API KEY", 6), Column("KV CACHE", 7)),
)


@_engines.callback(invoke_without_command=True, epilog=_EPILOG)
def engines(
    ctx: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show why an engine was not found.")] = False,
    json: Json = False,
) -> None:
    """List engines and what they can do; install one."""
    if ctx.invoked_subcommand is not None:
        return
    from mscli.engines.table import engine_states
    from mscli.instances.json_values import to_json

    screen = open_screen(ctx, json)
    states = engine_states()
    if json:
        screen.data({"engines": to_json(states)})
        return
    screen.table(_ENGINE_COLUMNS, [_engine_row(state) for state in states])
    if any(state.where and state.gpu is None for state in states):
        screen.note("?: GPU support is unknown until it starts; `mscli up` stops it rather than run on the CPU", "dim")
    screen.fields([(state.name, state.where or "") for state in states], indent="")
    absent = [state.name for state in states if not state.where and state.note]
    for state in states:
        if state.note and (verbose or state.where):
            screen.note(f"{state.name}: {state.note}", "yellow")
    if absent and not verbose:
        screen.paragraph(f"To install one: mscli engines install {absent[0]}. Why not found: mscli engines -v")


@_engines.command("install", epilog="Example: mscli engines install ollama")
def install(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ENGINE", help="The engine; ENGINE==VERSION pins a version.")],
    events: Events = False,
    json: Json = False,
) -> None:
    """Install an engine into mscli's own folder, without root."""
    from mscli.catalog.names import engine_meant
    from mscli.cli.progress import listener_of
    from mscli.engines.table import install_engine
    from mscli.instances.json_values import to_json

    screen = open_screen(ctx, json or events)
    with listener_of(screen, events) as progress:
        engine, pinned, version = name.partition("==")
        name = engine_meant(engine) + pinned + version
        progress.stage("install", name)
        found = install_engine(name, progress)
    if screen.json_mode:
        screen.data({"installation": to_json(found)})
    else:
        _said(screen, found.engine, found.version, str(found.path))


def _said(screen: Screen, engine: str, version: str | None, where: str) -> None:
    screen.text(f"{engine} {version or ''} is installed in {where}")


def _engine_row(state: EngineState) -> tuple[str, ...]:
    can = state.capabilities
    version = state.version or ("installed" if state.where else styled("not installed", "dim"))
    if can is None:
        return (state.name, version, *("" for _ in _ENGINE_COLUMNS[2:]))
    flags = ("yes" if flag else "no" for flag in (can.vision, can.tools, can.reasoning, can.api_key))
    places = (_runs(state, can.multi_gpu, state.gpu), _runs(state, can.cpu, state.cpu))
    return (state.name, version, *places, *flags, ",".join(can.kv_types))


def _runs(state: EngineState, engine_can: bool, copy_can: bool | None) -> str:
    """Whether it runs there: the copy that is here, or, where none is, the engine."""
    if state.where is None or not engine_can:
        return "yes" if engine_can else "no"
    return {True: "yes", False: "no", None: "?"}[copy_can]


COMMANDS: Commands = {
    "gpus": (gpus, "Example: mscli gpus --json"),
    "engines": _engines,
}
