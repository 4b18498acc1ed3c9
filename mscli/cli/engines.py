"""`mscli engines`: which engines are here, what each can do, and getting one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.options import Events, Json
from mscli.cli.screen import Screen, open_screen

if TYPE_CHECKING:
    from mscli.engines.table import EngineState

app = typer.Typer(help="List the engines with version, place and abilities; install one.")
_EPILOG = "Examples: mscli engines  |  mscli engines --json  |  mscli engines install ollama"


def register(program: typer.Typer) -> None:
    """Add the commands."""
    program.add_typer(app, name="engines")


@app.callback(invoke_without_command=True, epilog=_EPILOG)
def engines(ctx: typer.Context, json: Json = False) -> None:
    """List every engine: whether it is here, which version, where, and what it can do."""
    if ctx.invoked_subcommand is not None:
        return
    from mscli.engines.table import engine_states
    from mscli.instances.json_values import to_json

    screen = open_screen(ctx, json)
    states = engine_states()
    if json:
        screen.data({"engines": to_json(states)})
        return
    screen.table(
        ("ENGINE", "VERSION", "VISION", "TOOLS", "THINKS", "KEY", "GPUS", "CPU", "KV", "WHERE"),
        [_row(s) for s in states],
    )
    if any(state.where and state.gpu is None for state in states):
        screen.note("GPUS ?: this copy does not tell; `mscli up` fails rather than running on the CPU unseen", "dim")
    for state in states:
        if state.note:
            screen.note(f"{state.name}: {state.note}", "yellow")


@app.command("install", epilog="Example: mscli engines install ollama")
def install(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ENGINE", help="The engine; ENGINE==VERSION for a certain one.")],
    events: Events = False,
    json: Json = False,
) -> None:
    """Install an engine into mscli's own folder: no root, checked, and nothing of it elsewhere."""
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
    screen.text(f"{engine} {version or ''} is in {where}")


def _row(state: EngineState) -> tuple[str, ...]:
    can = state.capabilities
    version = state.version or ("here" if state.where else "missing" if can else "not yet started by mscli")
    if can is None:
        return (state.name, version, *("-" * 7), state.where or "-")
    flags = ("yes" if flag else "no" for flag in (can.vision, can.tools, can.reasoning, can.api_key))
    places = (_runs(state, can.multi_gpu, state.gpu), _runs(state, can.cpu, state.cpu))
    return (state.name, version, *flags, *places, ",".join(can.kv_types), state.where or "-")


def _runs(state: EngineState, engine_can: bool, copy_can: bool | None) -> str:
    """Whether it runs there: the copy that is here, or, where none is, the engine."""
    if state.where is None or not engine_can:
        return "yes" if engine_can else "no"
    return {True: "yes", False: "no", None: "?"}[copy_can]
