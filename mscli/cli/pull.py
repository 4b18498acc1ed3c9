"""`mscli pull`: have the weights here, whole and checked, before they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.options import Events, Json, ProfileFile, Yes
from mscli.cli.screen import Screen, open_screen
from mscli.cli.typed import say_old_name, typed_profile
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.cli.progress import Hears
    from mscli.lifecycle.decision import Chosen
    from mscli.weights.progress import Listener

_PROFILE = "Profile or model (default: best fit)."
_EPILOG = "Examples: mscli pull small-gguf-q4  |  mscli pull small-bf16 --verify  |  mscli pull small-gguf-q8 --to /mnt"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pull", epilog=_EPILOG)(pull)


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
    from mscli.weights.from_hub import verify

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
    from mscli.weights.from_hub import copy_to

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
