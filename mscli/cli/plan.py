"""`mscli plan`: what would run here, or on a machine that is not here, and what each profile would need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mscli.cli.options import Json, ProfileFile
from mscli.cli.screen import Screen, open_screen
from mscli.errors import Code, Exit, MscliError

if TYPE_CHECKING:
    from mscli.catalog.load import Catalog
    from mscli.lifecycle.snapshot import Snapshot
    from mscli.planning.plan import Choice, NoFit, Plan

_EPILOG = (
    'Examples: mscli plan  |  mscli plan small-fp8-2gpu --users 4  |  mscli plan --on "2x RTX 4090" --price 1.20/day'
    "  |  mscli plan --on all"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan", epilog=_EPILOG)(plan)


def plan(
    ctx: typer.Context,
    profile: Annotated[str | None, typer.Argument(metavar="[PROFILE]", help="Only this one; else all.")] = None,
    file: ProfileFile = None,
    on: Annotated[str | None, typer.Option("--on", help='Another machine: "2x RTX 4090", a file, or all.')] = None,
    free: Annotated[str | None, typer.Option("--free", help='With --on: free on each GPU ("22 GiB").')] = None,
    ram: Annotated[str | None, typer.Option("--ram", help='With --on: host RAM ("64 GiB").')] = None,
    price: Annotated[str | None, typer.Option("--price", help="What the machine costs: 1.20/day, 0.5/hour.")] = None,
    context: Annotated[int | None, typer.Option("--ctx", min=1, help="Context length in tokens.")] = None,
    gpus: Annotated[str | None, typer.Option("--gpus", help="GPUs to use: indices or UUIDs, by commas.")] = None,
    users: Annotated[int | None, typer.Option("--users", min=1, help="Concurrent requests.")] = None,
    images: Annotated[int | None, typer.Option("--images", min=0, help="Images allowed per request.")] = None,
    kv: Annotated[str | None, typer.Option("--kv", help="KV cache type: f16, q8_0, q4_0 or fp8.")] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="Only this engine.")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="This variant of the weights.")] = None,
    prefer: Annotated[str | None, typer.Option("--prefer", help="quality, speed or context.")] = None,
    offload: Annotated[bool, typer.Option("--offload", help="Allow part of the weights in host memory.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show what earlier starts really took.")] = False,
    json: Json = False,
) -> int:  # fmt: skip
    """Plan without starting: every profile's verdict, and for the chosen one memory, speed and the exact command."""
    from mscli.cli.options import only_one, overrides_of

    screen = open_screen(ctx, json)
    only_one(profile, file)
    if on is None and (free or ram):
        raise MscliError(Code.USAGE, "--free and --ram describe another machine", "Give --on as well.")
    overrides = overrides_of(context, users, images, kv, gpus, engine, variant, prefer, offload)
    if on == "all":
        from mscli.cli.plan_view import show_all_cards

        return show_all_cards(screen, overrides, profile)
    look = _Look(profile, file, on, free, ram)
    choice = look.priced(look.verdicts(overrides), price)
    _report(screen, look, choice, explain)
    found = choice.ranked[0] if look.single and choice.ranked else choice.chosen
    return Exit.NO_FIT if found is None or found.verdict == "no" else Exit.DONE


class _Look:
    """The profiles that are planned, and the machine they are planned for."""

    def __init__(self, name: str | None, file: Path | None, on: str | None, free: str | None, ram: str | None) -> None:
        from mscli.catalog.load import load_profile_file
        from mscli.lifecycle.pinned import catalogue
        from mscli.paths import places

        self.catalog: Catalog = catalogue(places())
        self.profiles = list(self.catalog.profiles.values())
        self.single = name is not None or file is not None
        if file is not None:
            self.profiles = [load_profile_file(file, self.catalog)]
        elif name is not None:
            self.profiles = [self.catalog.profile(name)]
        self.snapshot = self._snapshot(on, free, ram)

    def _snapshot(self, on: str | None, free: str | None, ram: str | None) -> Snapshot:
        from mscli.lifecycle.snapshot import see
        from mscli.paths import places

        if on is None:
            return see(places(), [profile.engine for profile in self.profiles])
        from mscli.lifecycle.what_if import elsewhere, imagine

        return imagine(elsewhere(on, free, ram))

    def verdicts(self, overrides: Any) -> Choice:
        """All verdicts; a single profile is planned with the nearest overrides that works."""
        from mscli.lifecycle.decision import plan_all, plan_one
        from mscli.planning.plan import Choice, NoFit

        if not self.single:
            return plan_all(self.profiles, self.catalog.models, self.snapshot, overrides)
        outcome = plan_one(self.profiles[0], self.catalog.models[self.profiles[0].model], self.snapshot, overrides)
        chosen = None if isinstance(outcome, NoFit) else outcome
        return Choice(chosen, "it was asked for by name" if chosen else "; ".join(outcome.reasons), (outcome,))

    def priced(self, choice: Choice, price: str | None) -> Choice:
        """The same verdicts with the cost per million tokens at `price`."""
        if price is None:
            return choice
        from dataclasses import replace

        from mscli.planning.plan import NoFit
        from mscli.planning.speed import cost, price_per_hour

        per_hour = price_per_hour(price)

        def with_cost(outcome: Plan | NoFit) -> Plan | NoFit:
            if isinstance(outcome, NoFit):
                return outcome
            return replace(outcome, cost=cost(outcome, per_hour, self.catalog.models[outcome.model]))

        ranked = tuple(with_cost(outcome) for outcome in choice.ranked)
        chosen = next((item for item in ranked if choice.chosen and item.profile == choice.chosen.profile), None)
        return replace(choice, ranked=ranked, chosen=None if isinstance(chosen, NoFit) else chosen)

    def profile_of(self, outcome: Plan | NoFit) -> Any:
        """The profile that was planned."""
        return next(profile for profile in self.profiles if profile.name == outcome.profile)


def _report(screen: Screen, look: _Look, choice: Choice, explain: bool) -> None:
    from mscli.cli.plan_view import plan_json
    from mscli.lifecycle.preview import Preview, preview, somewhere
    from mscli.paths import places
    from mscli.planning.learned import history
    from mscli.planning.plan import NoFit

    def previewed(outcome: Plan | NoFit) -> Preview:
        if isinstance(outcome, NoFit):
            return Preview(None, ())
        profile, model = look.profile_of(outcome), look.catalog.models[outcome.model]
        return preview(outcome, profile, model, somewhere(profile, model, places()))

    learned: tuple[str, ...] = ()
    if explain and choice.chosen:
        version = look.snapshot.versions.get(choice.chosen.engine)
        learned = history(look.snapshot.observations, choice.chosen, version)
    if screen.json_mode:
        rows = [
            {**plan_json(item, (made := previewed(item)).command), "notes": list(made.notes)} for item in choice.ranked
        ]
        chosen = choice.chosen.profile if choice.chosen else None
        screen.data({"chosen": chosen, "reason": choice.reason, "profiles": rows, "learned": list(learned)})
        return
    from mscli.cli.plan_view import show_choice

    show_choice(screen, choice, look.catalog, previewed(choice.chosen) if choice.chosen else None)
    for line in learned or (("no earlier start of this on this card is known",) if explain else ()):
        screen.text(f"  learned: {line}")
