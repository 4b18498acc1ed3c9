"""`mscli engines`: which engines are here, what each can do, and getting one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.layout import Column, styled
from mscli.cli.options import Events, Json
from mscli.cli.screen import Screen, open_screen

if TYPE_CHECKING:
    from mscli.engines.table import EngineState

app = typer.Typer()
_EPILOG = "Examples: mscli engines  |  mscli engines --json  |  mscli engines install ollama"

_COLUMNS = (
    *(Column("ENGINE"), Column("VERSION"), Column("GPUS", 1), Column("CPU", 2), Column("VISION", 3)),
    *(Column("TOOLS", 4), Column("REASONING", 5), Column("API KEY", 6), Column("KV CACHE", 7)),
)


def register(program: typer.Typer) -> None:
    """Add the commands."""
    program.add_typer(app, name="engines")


@app.callback(invoke_without_command=True, epilog=_EPILOG)
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
    screen.table(_COLUMNS, [_row(state) for state in states])
    if any(state.where and state.gpu is None for state in states):
        screen.note("?: GPU support is unknown until it starts; `mscli up` stops it rather than run on the CPU", "dim")
    screen.fields([(state.name, state.where or "") for state in states], indent="")
    absent = [state.name for state in states if not state.where and state.note]
    for state in states:
        if state.note and (verbose or state.where):
            screen.note(f"{state.name}: {state.note}", "yellow")
    if absent and not verbose:
        screen.paragraph(f"To install one: mscli engines install {absent[0]}. Why not found: mscli engines -v")


@app.command("install", epilog="Example: mscli engines install ollama")
def install(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ENGINE", help="The engine; ENGINE==VERSION pins a version.")],
    events: Events = False,
    json: Json = False,
) -> None:
    """Install an engine into mscli's own folder, without root."""
    from mscli.cli.progress import listener_of
    from mscli.engines.table import install_engine
    from mscli.instances.json_values import to_json

    screen = open_screen(ctx, json or events)
    with listener_of(screen, events) as progress:
        progress.stage("install", name)
        found = install_engine(name, progress)
    if screen.json_mode:
        screen.data({"installation": to_json(found)})
    else:
        _said(screen, found.engine, found.version, str(found.path))


def _said(screen: Screen, engine: str, version: str | None, where: str) -> None:
    screen.text(f"{engine} {version or ''} is installed in {where}")


def _row(state: EngineState) -> tuple[str, ...]:
    can = state.capabilities
    version = state.version or ("installed" if state.where else styled("not installed", "dim"))
    if can is None:
        return (state.name, version, *("" for _ in _COLUMNS[2:]))
    flags = ("yes" if flag else "no" for flag in (can.vision, can.tools, can.reasoning, can.api_key))
    places = (_runs(state, can.multi_gpu, state.gpu), _runs(state, can.cpu, state.cpu))
    return (state.name, version, *places, *flags, ",".join(can.kv_types))


def _runs(state: EngineState, engine_can: bool, copy_can: bool | None) -> str:
    """Whether it runs there: the copy that is here, or, where none is, the engine."""
    if state.where is None or not engine_can:
        return "yes" if engine_can else "no"
    return {True: "yes", False: "no", None: "?"}[copy_can]
