"""`mscli weights`: what lies on this disk, and making room."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.layout import Column, ago, size
from mscli.cli.options import Json, Yes
from mscli.cli.screen import Screen, open_screen
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from pathlib import Path

    from mscli.lifecycle.server_weights import OnServer
    from mscli.weights.stored import Stored

app = typer.Typer()
_EPILOG = "Examples: mscli weights  |  mscli weights prune  |  mscli weights prune --keep small-q4 --yes"

_COLUMNS = (
    *(Column("REPOSITORY"), Column("SIZE", right=True), Column("UNFINISHED", 1, right=True), Column("LAST USED", 3)),
    *(Column("REVISION", 4), Column("PROFILES", 2, clip=True)),
)
_MOST_ROWS = 15


def register(program: typer.Typer) -> None:
    """Add the commands."""
    program.add_typer(app, name="weights")


@app.callback(invoke_without_command=True, epilog=_EPILOG)
def weights(
    ctx: typer.Context,
    all_: Annotated[bool, typer.Option("--all", "-a", help="List every repository.")] = False,
    json: Json = False,
) -> None:
    """List downloaded weights; free those that no profile uses."""
    if ctx.invoked_subcommand is not None:
        return
    from mscli.instances.json_values import to_json
    from mscli.paths import hub_cache

    screen = open_screen(ctx, json)
    stored, held = _stored(), _held()
    if json:
        entries = [_entry(item) for item in stored]
        screen.data({"weights": entries, "folder": str(hub_cache()), "on_servers": to_json(held)})
        return
    shown = stored if all_ or len(stored) <= _MOST_ROWS else stored[:_MOST_ROWS]
    if stored:
        screen.table(_COLUMNS, [_row(item) for item in shown])
    if len(shown) < len(stored):
        screen.paragraph(f"{len(stored) - len(shown)} more: mscli weights --all", style="dim")
    _show_held(screen, held)
    total = size(sum(item.size_bytes for item in stored))
    screen.paragraph(f"{total} of known weights in {hub_cache()}" if stored else f"no known weights in {hub_cache()}")


@app.command("prune", epilog="Example: mscli weights prune --keep small-gguf-q4")
def prune(
    ctx: typer.Context,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="PROFILE", help="Keep only what this profile needs (repeatable)."),
    ] = None,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be freed; delete nothing.")] = False,
    json: Json = False,
) -> None:
    """Delete weights that no profile uses and no instance serves.

    With --keep: everything except what those profiles need. Asks before it deletes.
    """
    from mscli.instances.json_values import to_json
    from mscli.lifecycle.server_weights import remove, unneeded
    from mscli.weights.stored import prune as free
    from mscli.weights.stored import prune_candidates

    screen = open_screen(ctx, json)
    for name in keep or ():
        _known(name)
    found = prune_candidates(_stored(), _served(), set(keep) if keep else None)
    models = unneeded(_held(), set(keep) if keep else None)
    if not json:
        _show(screen, found, models)
    freed = 0
    if (found or models) and not dry_run:
        _ask(screen, sum(item.size_bytes for item in found) + _own_bytes(models), yes)
        freed = sum(free(item) for item in found) + _own_bytes(models)
        for model in models:
            remove(model)
    if json:
        rows = [_entry(item) for item in found]
        screen.data({"candidates": rows, "on_servers": to_json(models), "freed_bytes": freed})
    elif freed:
        screen.text(f"{size(freed)} freed")
    elif found or models:
        total = sum(item.size_bytes for item in found) + _own_bytes(models)
        screen.text(f"{size(total)} would be freed. To delete: the same command without --dry-run")


def _ask(screen: Screen, total_bytes: int, yes: bool) -> None:
    if yes:
        return
    if not screen.live:
        raise MscliError(
            Code.USAGE, "nothing was deleted: there is no terminal to ask for confirmation", "Add --yes or --dry-run."
        )
    if not screen.confirm(f"Delete {size(total_bytes)}?", default=False):
        raise MscliError(Code.INTERRUPTED, "nothing was deleted")


def _stored() -> tuple[Stored, ...]:
    from mscli.lifecycle.pinned import catalogue
    from mscli.paths import places
    from mscli.weights.stored import on_disk

    catalog = catalogue(places())
    return on_disk(catalog.profiles.values(), catalog.models)


def _served() -> tuple[Path, ...]:
    """Files that running instances serve from."""
    from mscli.instances.records import Records, running
    from mscli.paths import places

    return tuple(path for record in Records(places()).all()[0] if running(record) for path in record.weights)


def _known(name: str) -> None:
    from mscli.lifecycle.pinned import catalogue
    from mscli.paths import places

    catalogue(places()).profile(name)


def _held() -> tuple[OnServer, ...]:
    """Models on servers that hold many."""
    from mscli.instances.records import Records
    from mscli.lifecycle.pinned import catalogue
    from mscli.lifecycle.server_weights import on_servers
    from mscli.paths import places

    return on_servers(catalogue(places()), Records(places()))


def _own_bytes(models: tuple[OnServer, ...]) -> int:
    """What removing these frees: a derived model shares its bytes with the one it is from."""
    return sum(model.size_bytes for model in models if not model.derived)


def _show_held(screen: Screen, held: tuple[OnServer, ...]) -> None:
    for model in held:
        need = f"of instance {model.instance}" if model.derived else f"for {', '.join(model.profiles) or 'no profile'}"
        place = f"at {model.host}:{model.port}" if model.folder is None else f"in {model.folder}"
        shared = "" if model.ours else " (not mscli's; never deleted)"
        screen.text(f"{size(model.size_bytes)}  {model.name} on {model.engine} {place}  {need}{shared}")


def _show(screen: Screen, found: tuple[Stored, ...], models: tuple[OnServer, ...]) -> None:
    _show_held(screen, models)
    if not found:
        screen.note("nothing to free in the hub cache")
        return
    screen.table(_COLUMNS, [_row(item) for item in found])


def _row(item: Stored) -> tuple[str, ...]:
    used = "never" if item.last_used_s is None else f"{ago(time.time() - item.last_used_s)} ago"
    unfinished = size(item.unfinished_bytes) if item.unfinished_bytes else ""
    profiles = ", ".join(item.profiles) or "none"
    return (item.repository, size(item.size_bytes), unfinished, used, item.revision[:12], profiles)


def _entry(item: Stored) -> dict[str, object]:
    return {
        "repository": item.repository,
        "revision": item.revision,
        "files": [str(path) for path in item.files],
        "size_bytes": item.size_bytes,
        "unfinished_bytes": item.unfinished_bytes,
        "last_used_s": item.last_used_s,
        "variants": list(item.variants),
        "profiles": list(item.profiles),
    }
