"""`mscli weights` and `mscli pull`: what lies on this disk, and weights fetched before they are needed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.layout import Column, ago, size
from mscli.cli.screen import Screen, open_screen
from mscli.cli.tree import Commands, Events, Json, ProfileFile, Yes
from mscli.cli.typed import say_old_name, typed_profile
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from pathlib import Path

    from mscli.cli.progress import Hears
    from mscli.lifecycle.decision import Chosen
    from mscli.lifecycle.server_weights import OnServer
    from mscli.weights.progress import Listener
    from mscli.weights.stored import Stored

_weights = typer.Typer()
_EPILOG = "Examples: mscli weights  |  mscli weights prune  |  mscli weights prune --keep small-q4 --yes"

_COLUMNS = (
    *(Column("REPOSITORY"), Column("SIZE", right=True), Column("UNFINISHED", 1, right=True), Column("LAST USED", 3)),
    *(Column("REVISION", 4), Column("PROFILES", 2, clip=True)),
)
_MOST_ROWS = 15


@_weights.callback(invoke_without_command=True, epilog=_EPILOG)
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
    if not stored and not held:
        screen.paragraph("To download those of a profile: mscli pull PROFILE")


@_weights.command("prune", epilog="Example: mscli weights prune --keep small-gguf-q4")
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


_PROFILE = "Profile or model (default: best fit)."
_PULL = "Examples: mscli pull small-gguf-q4  |  mscli pull small-bf16 --verify  |  mscli pull small-gguf-q8 --to /mnt"


def pull(
    ctx: typer.Context,
    profile: Annotated[str | None, typer.Argument(metavar="[PROFILE]", help=_PROFILE)] = None,
    file: ProfileFile = None,
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file; download damaged ones again.")] = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Copy the weights there for offline use.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    yes: Yes = False,
    events: Events = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Download a profile's weights and verify them.

    An interrupted download resumes where it stopped. The revision is pinned.
    """
    from mscli.cli.progress import listener_of, until_admitted
    from mscli.lifecycle.decision import chosen
    from mscli.paths import places

    screen = open_screen(ctx, json or events)
    if to is not None and verify:
        raise MscliError(Code.USAGE, "--to and --verify cannot be used together", "--to verifies every byte anyway.")

    def pulled() -> tuple[Chosen, dict[str, object]]:
        with listener_of(screen, events) as progress, _resumable():
            progress.stage("plan", "reading profiles")
            what = chosen(typed_profile(ctx, profile, file), file, places())
            progress.stage("weights", f"{what.model.title}, {what.variant.name}")
            if what.variant.source.kind == "ollama":
                data = _through_server(what, offline, verify, progress)
            elif to is not None:
                data = _copy(what, to, offline, progress)
            elif verify:
                data = _verify(what, offline, progress)
            else:
                data = _fetch(screen, what, offline, yes, progress)
        return what, data

    what, data = until_admitted(screen, pulled)
    say_old_name(screen, what.profile)
    said = str(data.pop("said"))
    if screen.json_mode:
        screen.data({"profile": what.profile.name, "variant": what.variant.name, **data})
    else:
        screen.text(said)


@contextmanager
def _resumable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        hint = "To resume: the same command again"
        raise MscliError(Code.INTERRUPTED, "interrupted; what was downloaded is kept", hint) from None


def _fetch(screen: Screen, what: Chosen, offline: bool, yes: bool, progress: Hears) -> dict[str, object]:
    from mscli.cli.layout import size
    from mscli.lifecycle.preparation import LARGE_BYTES
    from mscli.weights.ensure import ensure, wanted

    missing = wanted(what.model, what.variant, offline=offline).missing_bytes
    if missing > LARGE_BYTES and screen.live and not yes and not progress.agree(missing):
        raise typer.Abort
    files = ensure(what.model, what.variant, progress, offline=offline)
    said = f"{files.model}\n{size(files.bytes_on_disk)}, {size(missing)} of it downloaded now"
    return {
        "model": files.model,
        "projector": files.projector,
        "bytes": files.bytes_on_disk,
        "fetched_bytes": missing,
        "said": said,
    }


def _verify(what: Chosen, offline: bool, progress: Listener) -> dict[str, object]:
    from mscli.cli.layout import count, size
    from mscli.weights.stored import verify

    found = verify(what.variant, progress, offline=offline)
    if (found.bad or found.absent) and not found.repaired:
        raise MscliError(
            Code.WEIGHTS_MISSING,
            f"damaged: {', '.join(found.bad) or 'none'}; missing: {', '.join(found.absent) or 'none'}",
            "Download them again: mscli pull --verify, without --offline.",
            {
                "cause": "corrupt_weights" if found.bad else "offline",
                "bad": list(found.bad),
                "absent": list(found.absent),
            },
        )
    repaired = f"; downloaded again: {', '.join((*found.bad, *found.absent))}" if found.repaired else ""
    said = f"{count(found.files, 'file')}, {size(found.checked_bytes)} hashed in {found.seconds:.1f} s{repaired}"
    return {
        "files": found.files,
        "checked_bytes": found.checked_bytes,
        "bad": list(found.bad),
        "absent": list(found.absent),
        "repaired": found.repaired,
        "seconds": round(found.seconds, 3),
        "said": said,
    }


def _copy(what: Chosen, to: Path, offline: bool, progress: Listener) -> dict[str, object]:
    from mscli.cli.layout import size
    from mscli.weights.stored import copy_to

    listing = copy_to(what.variant, to, progress, offline=offline)
    said = f"{size(listing.total_bytes)} in {to}\nOn the other machine: mscli up {what.profile.name} --weights {to}"
    return {"folder": str(to), "revision": listing.revision, "bytes": listing.total_bytes, "said": said}


def _through_server(what: Chosen, offline: bool, verify: bool, progress: Listener) -> dict[str, object]:
    from mscli.cli.layout import size
    from mscli.lifecycle.server_weights import pull as pull_through

    files, where = pull_through(what.profile, what.model, what.variant, progress, offline, verify)
    tag = what.variant.source.repository
    return {
        "model": tag,
        "projector": None,
        "bytes": files.bytes_on_disk,
        "said": f"{tag}, {size(files.bytes_on_disk)}, {where}",
    }


COMMANDS: Commands = {"weights": _weights, "pull": (pull, _PULL)}
