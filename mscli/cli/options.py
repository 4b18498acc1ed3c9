"""Options that several commands share, spelled, explained and checked once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.planning.plan import Overrides

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for scripts and nothing else.")]
_WHICH = "The instance (default: the one that runs)."
Instance = Annotated[str | None, typer.Argument(metavar="[NAME]", help=_WHICH)]
InstanceOption = Annotated[str | None, typer.Option("--instance", "-i", "--name", help=_WHICH)]
TimeoutS = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait until it is ready.")]
Events = Annotated[
    bool, typer.Option("--events", help="Progress as JSON lines before the result; --json=stream is the same.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
Heal = Annotated[
    bool, typer.Option("--heal/--no-heal", help="Change the plan and try again when the engine dies at the start.")
]
ProfileFile = Annotated[
    Path | None, typer.Option("--file", "-f", help="A profile file to use in place of a named profile.")
]

PREFERENCES = ("quality", "speed", "context")


def overrides_of(
    context: int | None,
    users: int | None,
    images: int | None,
    kv: str | None,
    gpus: str | None,
    engine: str | None,
    variant: str | None,
    prefer: str | None,
    offload: bool,
) -> Overrides:
    """The overrides of one command line. Raises USAGE for a word that is none of those known."""
    from mscli.catalog.profile import ENGINES, KV_TYPES
    from mscli.planning.plan import Overrides

    _one_of("--kv", kv, KV_TYPES)
    _one_of("--engine", engine, ENGINES)
    _one_of("--prefer", prefer, PREFERENCES)
    wanted = tuple(word.strip() for word in gpus.split(",") if word.strip()) if gpus is not None else None
    if wanted == ():
        raise MscliError(Code.USAGE, "--gpus names no GPU", "Give indices or UUIDs by commas: --gpus 0,1")
    return Overrides(context, users, images, kv, wanted, engine, variant, prefer, offload)


def only_one(profile: str | None, file: Path | None) -> None:
    """Raise USAGE when a profile's name and a profile file were both given."""
    if profile is not None and file is not None:
        raise MscliError(Code.USAGE, "a profile's name and --file were both given", "Give one of them.")


def _one_of(option: str, word: str | None, known: tuple[str, ...]) -> None:
    if word is not None and word not in known:
        raise MscliError(Code.USAGE, f"{option} {word}: not known", f"One of: {', '.join(known)}")
