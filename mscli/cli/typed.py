"""What was typed after options that several commands share, as the values that it means."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mscli.errors import Code, MscliError
from mscli.frozen import frozen

if TYPE_CHECKING:
    import typer

    from mscli.catalog.profile import Profile
    from mscli.cli.screen import Screen
    from mscli.planning.plan import Overrides

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
CLIENTS = ("agents",)
CONTAINED = "vllm-docker"
PREFERENCES = ("quality", "speed", "context")
# Field of Overrides -> the option that sets it.
_OPTIONS = {
    "context": "--ctx", "users": "--users", "images": "--images", "kv_type": "--kv", "gpus": "--gpus",
    "engine": "--engine", "variant": "--variant", "prefer": "--prefer", "offload": "--offload",
    "least_context": "--for",
}  # fmt: skip


@frozen
class Typed:
    """What was typed at `mscli plan`, for the commands to type next: they have the same options, or they would not do
    what is shown. `what`: the profile, model or file. `machine`: --on and the options that go with it."""

    overrides: Overrides
    what: str = ""
    machine: str = ""

    def up(self, profile: str) -> str:
        """The command that starts a profile as it is planned here."""
        return f"mscli up {profile}{options_of(self.overrides)}"

    def plan(self, profile: str) -> str:
        """The command that shows the whole plan of a profile."""
        return f"mscli plan {profile}{options_of(self.overrides)}{self.machine}"

    def every(self) -> str:
        """The command that shows every verdict."""
        return f"mscli plan{self.what} --all{options_of(self.overrides)}{self.machine}"

    def changed(self, options: str) -> str:
        """The same command with other options."""
        return f"mscli plan{self.what} {options}{options_of(self.overrides, but=options)}{self.machine}"


def typed(
    name: str | None, file: Path | None, machine: tuple[str | None, str | None, str | None], overrides: Overrides
) -> Typed:
    """`machine`: what was typed after --on, --free and --ram."""
    what = f" -f {shlex.quote(str(file))}" if file else f" {shlex.quote(name)}" if name else ""
    described = zip(("--on", "--free", "--ram"), machine, strict=True)
    return Typed(overrides, what, "".join(f" {option} {shlex.quote(value)}" for option, value in described if value))


def say_old_name(screen: Screen, profile: Profile) -> None:
    """Say what to type in place of a profile's old name."""
    if profile.instead:
        screen.note(f"{profile.name} is an old name; type now: mscli up {profile.instead}", "yellow")


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
    from mscli.catalog.names import engine_meant
    from mscli.catalog.profile import ENGINES, KV_TYPES
    from mscli.planning.plan import Overrides

    _one_of("--kv", kv, KV_TYPES)
    engine = engine_meant(engine) if engine else engine
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


def options_of(overrides: Overrides, but: str = "") -> str:
    """The options that give these overrides, each after a space, without those that `but` has in their place."""
    instead = but.split()
    given = ((field, option, getattr(overrides, field)) for field, option in _OPTIONS.items())
    return "".join(
        f" {option}{_value(field, value)}"
        for field, option, value in given
        if value not in (None, False) and option not in instead
    )


def _value(field: str, value: object) -> str:
    if value is True:
        return ""
    text = CLIENTS[0] if field == "least_context" else ",".join(value) if isinstance(value, tuple) else str(value)
    return f" {shlex.quote(text)}"


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
