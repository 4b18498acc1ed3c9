"""`mscli up` on the command line: plan, pull, start, and wait until it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mscli.cli.options import (
    Container,
    Context,
    Engine,
    Events,
    ForAgents,
    Gpus,
    Heal,
    Images,
    Json,
    Kv,
    Offload,
    Prefer,
    ProfileFile,
    TimeoutS,
    Users,
    Variant,
)
from mscli.cli.screen import open_screen
from mscli.cli.starting import Wishes, start
from mscli.cli.typed import typed_profile

_EPILOG = "Examples: mscli up  |  mscli up rehearsal  |  mscli up --for agents  |  mscli up small-q4 --dry-run"

_PROFILE = "Profile or model to start (default: best fit)."
_NAME = "Name the instance (default: from the profile)."
_PORT = "Listen on this port (default: a free one)."
_HOST = "Listen on this address (default: from the profile)."
_WEIGHTS = "Use weights copied by `mscli pull --to`."
_TEMPLATE = "Use the GGUF file's chat template (llama.cpp)."
_KEY_FILE = "Read the keys that clients must send from FILE."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up", epilog=_EPILOG)(up)


def up(
    ctx: typer.Context,
    profile: Annotated[str | None, typer.Argument(metavar="[PROFILE]", help=_PROFILE)] = None,
    file: ProfileFile = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help=_NAME)] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="N", min=1, max=65535, help=_PORT)] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help=_HOST)] = None,
    context: Context = None,
    gpus: Gpus = None,
    users: Users = None,
    images: Images = None,
    kv: Kv = None,
    engine: Engine = None,
    container: Container = False,
    variant: Variant = None,
    prefer: Prefer = None,
    timeout: TimeoutS = 1800.0,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is ready.")] = True,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the running instance of this name.")] = False,
    require_gpu: Annotated[bool, typer.Option(help="Fail if the engine falls back to the CPU.")] = True,
    offload: Offload = False,
    client: ForAgents = None,
    weights: Annotated[Path | None, typer.Option("--weights", metavar="FOLDER", help=_WEIGHTS)] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    api_key_file: Annotated[Path | None, typer.Option(metavar="FILE", help=_KEY_FILE)] = None,
    heal: Heal = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and the command; start nothing.")] = False,
    supervise: Annotated[bool, typer.Option("--supervise", help="Restart it when it crashes or hangs.")] = False,
    idle_stop: Annotated[str | None, typer.Option(metavar="TIME", help="Unload the model when idle: 30m.")] = None,
    adopt: Annotated[bool, typer.Option("--adopt", help="Use the Ollama server that is already running.")] = False,
    gateway: Annotated[bool, typer.Option("--gateway", help="Put mscli's gateway before llama.cpp or vLLM.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Leave out the gateway before Ollama or mistral.rs.")] = False,
    template: Annotated[str | None, typer.Option(metavar="gguf", help=_TEMPLATE)] = None,
    install: Annotated[bool, typer.Option(help="Install the engine if it is missing.")] = True,
    installed_only: Annotated[bool, typer.Option("--installed-only", help="Use installed engines only.")] = False,
    check: Annotated[bool, typer.Option(help="Ask the model one short question at the end.")] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", envvar="MSCLI_YES", help="Do not ask for confirmation.")] = False,
    events: Events = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Start a model: the given profile, or the best fit."""
    given = {name: value for name, value in locals().items() if name != "ctx"}
    given["profile"] = typed_profile(ctx, profile, file)
    start(open_screen(ctx, json or events), Wishes(**given))
