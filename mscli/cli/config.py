"""`mscli config`: a user's defaults for options, in one YAML file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from mscli.cli.screen import Screen, open_screen
from mscli.cli.tree import Commands, Json
from mscli.errors import Code, MscliError
from mscli.paths import places

app = typer.Typer()
_HEAD = "# Defaults for mscli's options: see `mscli config`.\n"

KeyName = Annotated[str, typer.Argument(metavar="KEY", help="profile, host, port, price, users, prefer or log.")]


@app.callback(invoke_without_command=True, epilog="Examples: mscli config  |  mscli config set port 8000")
def config(ctx: typer.Context, json: Json = False) -> None:
    """Show or set your default options.

    Keys: profile, host, port (up), price (plan), users, prefer (up and plan), log (chat).
    What is typed on the command line wins.
    """
    if ctx.invoked_subcommand is None:
        _list(open_screen(ctx, json))


@app.command("list", epilog="Example: mscli config list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """Show every default that is set."""
    _list(open_screen(ctx, json))


@app.command("get", epilog="Example: mscli config get port")
def get(ctx: typer.Context, key: KeyName, json: Json = False) -> None:
    """Print one default."""
    screen = open_screen(ctx, json)
    _known(key)
    value = _values().get(key)
    if json:
        screen.data({"key": key, "value": value})
    elif value is not None:
        screen.text(str(value))
    else:
        screen.note(f"{key} is not set. To set it: mscli config set {key} VALUE")


@app.command("set", epilog="Examples: mscli config set profile small-q4  |  mscli config set price 1.20/day")
def set_(
    ctx: typer.Context,
    key: KeyName,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The value.")],
    json: Json = False,
) -> None:
    """Set a default."""
    from mscli.catalog.files import written

    screen = open_screen(ctx, json)
    parsed = _parsed(key, value)
    _write(key, f"{key}: {written(parsed)}\n")
    if json:
        screen.data({"key": key, "value": parsed, "file": str(places().defaults)})
    else:
        screen.text(f"{key} is {parsed}")


@app.command("unset", epilog="Example: mscli config unset port")
def unset(ctx: typer.Context, key: KeyName, json: Json = False) -> None:
    """Remove a default."""
    screen = open_screen(ctx, json)
    _known(key)
    _write(key, "")
    if json:
        screen.data({"key": key, "value": None, "file": str(places().defaults)})
    else:
        screen.text(f"{key} is no longer set")


def _list(screen: Screen) -> None:
    values, file = _values(), places().defaults
    if screen.json_mode:
        screen.data({"file": str(file), "values": values})
    elif values:
        screen.fields([(key, str(value)) for key, value in values.items()], indent="")
        screen.note(f"from {file}", "dim")
    else:
        screen.note("no default is set. To set one: mscli config set KEY VALUE. Keys: " + ", ".join(_keys()))


def _keys() -> tuple[str, ...]:
    from mscli.catalog.schema import DEFAULTS

    return tuple(key.name for key in DEFAULTS.keys)


def _known(key: str) -> None:
    from mscli.catalog.types import nearest

    if key not in _keys():
        close = nearest(key, _keys())
        hint = f"Did you mean {close}? Keys: {', '.join(_keys())}" if close else f"Keys: {', '.join(_keys())}"
        raise MscliError(Code.USAGE, f"unknown key {key!r}", hint, {"key": key, "nearest": close})


def _parsed(key: str, text: str) -> object:
    """The value as `up` and `plan` will take it. Raises USAGE for one that they would refuse, PROFILE_UNKNOWN."""
    from mscli.catalog.document import Fault, scalar_node
    from mscli.catalog.schema import DEFAULTS
    from mscli.lifecycle.pinned import catalogue
    from mscli.planning.speed import price_per_hour

    _known(key)
    faults: list[Fault] = []
    value = next(each for each in DEFAULTS.keys if each.name == key).kind(scalar_node(text), (key,), faults)
    if faults:
        raise MscliError(Code.USAGE, f"{key} {text}: {faults[0].message}", "See: mscli help config set")
    if key == "profile":
        catalogue(places()).profile(text)
    if key == "price":
        price_per_hour(text)
    return value


def _values() -> dict[str, object]:
    from mscli.catalog.files import read_defaults

    return dict(read_defaults(places().defaults)) if places().defaults.exists() else {}


def _write(key: str, line: str) -> None:
    """Put `line` in place of the key's line, or at the end; comments and other keys stay. Raises FILE."""
    from mscli.instances.store import write_private

    file: Path = places().defaults
    text = file.read_text() if file.exists() else _HEAD
    kept = re.sub(rf"^{key}\s*:.*\n?", "", text, flags=re.MULTILINE)
    whole = kept + ("" if kept.endswith("\n") or not kept else "\n") + line
    if not re.search(r"^\w", whole, re.MULTILINE):  # no key is left
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_private(file, whole)


COMMANDS: Commands = {"config": app}
