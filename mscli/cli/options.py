"""Options that several commands share, spelled, explained and checked once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.catalog.profile import Profile
    from mscli.cli.screen import Screen
    from mscli.planning.plan import Overrides

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]
_WHICH = "The instance (default: the only one)."
Instance = Annotated[str | None, typer.Argument(metavar="[NAME]", help=_WHICH)]
InstanceOption = Annotated[str | None, typer.Option("--instance", "-i", "--name", metavar="NAME", help=_WHICH)]
TimeoutS = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Wait at most this long.")]
Events = Annotated[bool, typer.Option("--events", help="Print progress as JSON lines (same as --json=stream).")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Heal = Annotated[bool, typer.Option("--heal/--no-heal", help="Change the plan and retry if the start fails.")]
ProfileFile = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="Use a profile file in place of a named profile.")
]

# What `up` and `plan` change of a profile.
Context = Annotated[int | None, typer.Option("--ctx", metavar="N", min=1, help="Set the context length in tokens.")]
Gpus = Annotated[str | None, typer.Option("--gpus", metavar="GPUS", help="Use these GPUs (indices or UUIDs): 0,1.")]
Users = Annotated[
    int | None, typer.Option("--users", metavar="N", min=1, help="Plan for this many concurrent requests.")
]
Images = Annotated[int | None, typer.Option("--images", metavar="N", min=0, help="Allow this many images per request.")]
Kv = Annotated[str | None, typer.Option("--kv", metavar="TYPE", help="Set the KV cache type: f16, q8_0, q4_0, fp8.")]
Engine = Annotated[str | None, typer.Option("--engine", metavar="ENGINE", help="Use this engine only.")]
Container = Annotated[bool, typer.Option("--container", help="Run vLLM in a container (or --engine vllm-docker).")]
Variant = Annotated[str | None, typer.Option("--variant", metavar="VARIANT", help="Use this variant of the weights.")]
Prefer = Annotated[str | None, typer.Option("--prefer", metavar="WHAT", help="Prefer quality, speed or context.")]
ForAgents = Annotated[
    str | None, typer.Option("--for", metavar="CLIENT", help="Plan a context that coding agents can use: agents.")
]
Offload = Annotated[bool, typer.Option("--offload", help="Allow part of the weights in host memory.")]


def say_old_name(screen: Screen, profile: Profile) -> None:
    """Say what to type in place of a profile's old name."""
    if profile.instead:
        screen.note(f"{profile.name} is an old name; type now: mscli up {profile.instead}", "yellow")


UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
CLIENTS = ("agents",)
CONTAINED = "vllm-docker"
PREFERENCES = ("quality", "speed", "context")


def overrides_of(
    context: int | None,
    users: int | None,
    images: int | None,
    kv: str | None,
    gpus: str | None,
    engine: str | None,
    container: bool,
    variant: str | None,
    prefer: str | None,
    offload: bool,
    client: str | None,
) -> Overrides:
    """The overrides of one command line. Raises USAGE for a word that is none of those known."""
    from mscli.catalog.profile import ENGINES, KV_TYPES
    from mscli.planning.plan import Overrides

    _one_of("--kv", kv, KV_TYPES)
    _one_of("--engine", engine, ENGINES)
    if container and engine not in (None, "vllm", CONTAINED):
        raise MscliError(Code.USAGE, f"--container: {engine} does not run in a container", "Leave out one of them.")
    engine = CONTAINED if container else engine
    _one_of("--prefer", prefer, PREFERENCES)
    _one_of("--for", client, CLIENTS)
    wanted = tuple(word.strip() for word in gpus.split(",") if word.strip()) if gpus is not None else None
    if wanted == ():
        raise MscliError(Code.USAGE, "--gpus is empty", "Separate indices or UUIDs by commas: --gpus 0,1")
    return Overrides(context, users, images, kv, wanted, engine, variant, prefer, offload, _least_context(client))


def _least_context(client: str | None) -> int | None:
    if client is None:
        return None
    from mscli.agents.table import AGENT_CONTEXT

    return AGENT_CONTEXT


def seconds(option: str, text: str | None) -> int | None:
    """A length of time as it is typed: 90s, 30m, 2h. Raises USAGE."""
    found = re.fullmatch(r"(\d{1,9})\s*([smhd])(?:in)?", text or "")
    if text is None or (found and int(found[1])):
        return int(found[1]) * UNITS_S[found[2]] if found else None
    raise MscliError(Code.USAGE, f"{option} {text}: not a duration", f"For example: {option} 30m, {option} 2h")


def only_one(profile: str | None, file: Path | None) -> None:
    """Raise USAGE when a profile's name and a profile file were both given."""
    if profile is not None and file is not None:
        raise MscliError(Code.USAGE, "a profile name and --file cannot be used together", "Use one of them.")


def typed_profile(ctx: typer.Context, profile: str | None, file: Path | None) -> str | None:
    """The profile's name, but for the user's default where a file was given. Raises USAGE where both were typed."""
    if file is not None and getattr(ctx.get_parameter_source("profile"), "name", "") == "DEFAULT_MAP":
        return None
    only_one(profile, file)
    return profile


def _one_of(option: str, word: str | None, known: tuple[str, ...]) -> None:
    if word is not None and word not in known:
        raise MscliError(Code.USAGE, f"{option} {word}: unknown value", f"One of: {', '.join(known)}")
