"""`mscli plan`: what would run here, or on a machine that is not here, and what each profile would need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.layout import styled
from mscli.cli.screen import Screen, open_screen
from mscli.cli.tree import (
    Commands,
    Container,
    Context,
    Engine,
    ForAgents,
    Gpus,
    Images,
    Json,
    Kv,
    Offload,
    Prefer,
    ProfileFile,
    Users,
    Variant,
)
from mscli.errors import Code, Exit, MscliError
from mscli.frozen import replace
from mscli.planning.plan import Choice, NoFit

if TYPE_CHECKING:
    from mscli.catalog.load import Catalog
    from mscli.lifecycle.preview import Preview
    from mscli.lifecycle.snapshot import Snapshot
    from mscli.planning.plan import Overrides, Plan

_ON = 'Plan for "2x RTX 4090", "24 GB 8.6", a file, list, all.'
_FREE = 'With --on: free memory per GPU ("22 GiB").'
_PRICE = "Compare costs: 1.20/day, 0.5/hour."
_CARD_COUNTS = (1, 2, 4, 8)
_EPILOG = (
    'Examples: mscli plan  |  mscli plan small-fp8 --users 4  |  mscli plan --on "2x RTX 4090" --price 1.20/day'
    "  |  mscli plan --on all"
)


def plan(
    ctx: typer.Context,
    profile: Annotated[str | None, typer.Argument(metavar="[PROFILE]", help="Profile or model (default: all).")] = None,
    file: ProfileFile = None,
    on: Annotated[str | None, typer.Option("--on", metavar="MACHINE", help=_ON)] = None,
    free: Annotated[str | None, typer.Option("--free", metavar="SIZE", help=_FREE)] = None,
    ram: Annotated[str | None, typer.Option("--ram", metavar="SIZE", help='With --on: host RAM ("64 GiB").')] = None,
    price: Annotated[str | None, typer.Option("--price", metavar="PRICE", help=_PRICE)] = None,
    context: Context = None,
    gpus: Gpus = None,
    users: Users = None,
    images: Images = None,
    kv: Kv = None,
    engine: Engine = None,
    container: Container = False,
    variant: Variant = None,
    prefer: Prefer = None,
    offload: Offload = False,
    client: ForAgents = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="List every profile, even if it does not fit.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show what earlier starts really took.")] = False,
    json: Json = False,
) -> int:  # fmt: skip
    """Show what fits this machine, or another one.

    Without a profile: the best fit with its memory, speed and command, then others that fit. With one: the arithmetic
    behind its verdict. Starts nothing. Exits with 4 when nothing fits.
    """
    from mscli.cli.typed import only_one, overrides_of, say_old_name

    screen = open_screen(ctx, json)
    only_one(profile, file)
    if on is None and (free or ram):
        raise MscliError(Code.USAGE, "--free and --ram need --on", "Add --on.")
    overrides = overrides_of(context, users, images, kv, gpus, engine, container, variant, prefer, offload, client)
    if on == "list":
        return _list_cards(screen)
    if on == "all":
        return _all_cards(screen, overrides, profile, price)
    look = _Look(profile, file, (on, free, ram), overrides)
    choice = look.priced(look.verdicts(), price)
    if look.single:
        say_old_name(screen, look.profiles[0])
    if json:
        _report_json(screen, look, choice, explain)
    else:
        _report(screen, look, choice, explain, all_)
    found = choice.ranked[0] if look.single and choice.ranked else choice.chosen
    return Exit.NO_FIT if found is None or found.verdict == "no" else Exit.DONE


class _Look:
    """The profiles that are planned, and the machine they are planned for."""

    def __init__(
        self,
        name: str | None,
        file: Path | None,
        machine: tuple[str | None, str | None, str | None],
        overrides: Overrides,
    ) -> None:
        """`machine`: what was typed after --on, --free and --ram."""
        from mscli.catalog.load import load_profile_file
        from mscli.catalog.profile import on_engine
        from mscli.cli.typed import typed
        from mscli.lifecycle.pinned import catalogue
        from mscli.paths import places

        self.overrides = overrides
        self.catalog: Catalog = catalogue(places()).for_engine(overrides.engine)
        self.profiles = list(self.catalog.profiles.values())
        self.ways = self.catalog.ways(name) if name is not None else None
        self.single = self.ways is None and (name is not None or file is not None)
        if file is not None:
            self.profiles = [on_engine(load_profile_file(file, self.catalog), overrides.engine)]
        elif self.ways is not None:
            self.profiles = list(self.ways.profiles)
        elif name is not None:
            self.profiles = [self.catalog.profile(name)]
        self.snapshot = self._snapshot(*machine)
        self.typed = typed(name, file, machine, overrides)

    def _snapshot(self, on: str | None, free: str | None, ram: str | None) -> Snapshot:
        from mscli.lifecycle.snapshot import see
        from mscli.paths import places

        if on is None:
            return see(places(), [(profile.engine, profile.device) for profile in self.profiles])
        from mscli.lifecycle.snapshot import elsewhere, imagine

        return imagine(elsewhere(on, free, ram))

    def verdicts(self) -> Choice:
        """All verdicts; a single profile is planned with the nearest overrides that works."""
        from mscli.lifecycle.decision import plan_all, plan_one, plan_ways

        models, overrides = self.catalog.models, self.overrides
        if self.ways:
            return plan_ways(self.ways, models, self.snapshot, overrides)
        if not self.single:
            return plan_all(self.profiles, models, self.snapshot, overrides)
        outcome = plan_one(self.profiles[0], models[self.profiles[0].model], self.snapshot, overrides)
        chosen = None if isinstance(outcome, NoFit) else outcome
        return Choice(chosen, "requested" if chosen else "; ".join(outcome.reasons), (outcome,))

    def priced(self, choice: Choice, price: str | None) -> Choice:
        """The same verdicts with the cost per million tokens at `price`."""
        if price is None:
            return choice
        from mscli.planning.speed import price_per_hour

        per_hour = price_per_hour(price)
        ranked = tuple(_with_cost(outcome, per_hour, self.catalog) for outcome in choice.ranked)
        chosen = next((item for item in ranked if choice.chosen and item.profile == choice.chosen.profile), None)
        return replace(choice, ranked=ranked, chosen=None if isinstance(chosen, NoFit) else chosen)

    def previewed(self, outcome: Plan | NoFit) -> Preview:
        """The command that a verdict stands for."""
        from mscli.lifecycle.preview import Preview, preview, somewhere
        from mscli.paths import places

        if isinstance(outcome, NoFit):
            return Preview(None, ())
        profile = next(profile for profile in self.profiles if profile.name == outcome.profile)
        model = self.catalog.models[outcome.model]
        made = preview(outcome, profile, model, somewhere(profile, model, places()))
        short = self.too_short(outcome)
        return replace(made, notes=(*made.notes, short)) if short else made

    def too_short(self, plan: Plan) -> str | None:
        """What to say of a plan with less context than was asked for."""
        from mscli.planning.request import too_short

        return too_short(plan, self.catalog.models[plan.model], self.overrides)

    def learned(self, choice: Choice) -> tuple[str, ...]:
        """What earlier starts of the choice on this card took."""
        from mscli.planning.known import history

        if choice.chosen is None:
            return ()
        return history(self.snapshot.observations, choice.chosen, self.snapshot.versions.get(choice.chosen.engine))


def _with_cost(outcome: Plan | NoFit, per_hour: float, catalog: Catalog) -> Plan | NoFit:
    from mscli.planning.speed import cost

    if isinstance(outcome, NoFit):
        return outcome
    return replace(outcome, cost=cost(outcome, per_hour, catalog.models[outcome.model]))


def _report_json(screen: Screen, look: _Look, choice: Choice, explain: bool) -> None:
    from mscli.cli.plan_view import plan_json

    rows = []
    for outcome in choice.ranked:
        made = look.previewed(outcome)
        rows.append({**plan_json(outcome, made.command), "notes": list(made.notes)})
    chosen = choice.chosen.profile if choice.chosen else None
    learned = list(look.learned(choice)) if explain else []
    screen.data({"chosen": chosen, "reason": choice.reason, "profiles": rows, "learned": learned})


def _report(screen: Screen, look: _Look, choice: Choice, explain: bool, all_: bool) -> None:
    from mscli.cli.plan_view import show_all, show_choice

    if all_ and not look.single:
        show_all(screen, choice, look.catalog, look.typed)
    elif look.single:
        _report_one(screen, look, choice)
    else:
        made = look.previewed(choice.chosen) if choice.chosen else None
        show_choice(screen, choice, look.catalog, made, look.typed)
        if choice.chosen and (short := look.too_short(choice.chosen)):
            screen.note(f"note: {short}", "yellow")
    if explain:
        for line in look.learned(choice) or ("no earlier start of this profile on this GPU",):
            screen.paragraph(line, "  learned: ", "    ")


def _report_one(screen: Screen, look: _Look, choice: Choice) -> None:
    """One profile with all the arithmetic; or why it does not fit, and the nearest options that do."""
    from mscli.cli.plan_view import show_plan, verdict

    outcome = choice.ranked[0]
    title = look.catalog.models[outcome.model].title
    screen.line(styled(outcome.profile, "bold"), "  ", verdict(outcome))
    if isinstance(outcome, NoFit):
        screen.fields((("model", f"{title}, {outcome.variant}"), ("engine", outcome.engine)))
        for reason in outcome.reasons:
            screen.paragraph(reason, "  - ", "    ")
        if outcome.nearest:
            screen.paragraph(f"this would fit: {look.typed.changed(outcome.nearest)}", "  ")
        screen.paragraph(f"To see what fits: mscli plan{look.typed.machine}", "  ")
        return
    made = look.previewed(outcome)
    show_plan(screen, outcome, title, made)
    for note in made.notes:
        screen.note(f"note: {note}", "yellow")


def _list_cards(screen: Screen) -> int:
    """The cards that --on knows by name."""
    from mscli.catalog.gpus import load_gpus
    from mscli.cli.layout import Column, size
    from mscli.cli.plan_view import LONG_NAME
    from mscli.paths import shipped_profiles

    cards = sorted(load_gpus(shipped_profiles()).values(), key=lambda card: (card.architecture, card.name))
    if screen.json_mode:
        screen.data({"gpus": [{"name": card.name, "memory_bytes": card.memory_total_bytes,
                               "compute_capability": card.compute_capability} for card in cards]})  # fmt: skip
        return Exit.DONE
    columns = (Column("GPU"), Column("MEMORY", right=True), Column("COMPUTE", right=True))
    memory = [size(card.memory_total_bytes) if card.memory_total_bytes else "the host's" for card in cards]
    rows = [
        (LONG_NAME.sub("", card.name), held, card.compute_capability) for card, held in zip(cards, memory, strict=True)
    ]
    screen.table(columns, rows)
    screen.note('Any other GPU: mscli plan --on "24 GB 8.6" (memory and compute capability)')
    return Exit.DONE


def _all_cards(screen: Screen, overrides: Overrides, name: str | None, price: str | None) -> int:
    """What would be chosen on 1, 2, 4 and 8 of every card of the catalogue, headless."""
    from mscli.cli.plan_view import show_cards
    from mscli.planning.plan import to_json

    rows = _choices_by_card(overrides, name, price)
    if screen.json_mode:
        shown = [
            {
                "machine": card,
                "chosen": plan.profile if plan else None,
                "plan": to_json(plan) if plan else None,
                "why": why,
            }
            for card, plan, why in rows
        ]
        screen.data({"machines": shown})
    else:
        show_cards(screen, rows)
    return Exit.DONE


def _choices_by_card(overrides: Overrides, name: str | None, price: str | None) -> list[tuple[str, Plan | None, str]]:
    from mscli.catalog.gpus import load_gpus
    from mscli.catalog.load import load_catalog
    from mscli.lifecycle.decision import plan_all, plan_ways
    from mscli.lifecycle.snapshot import imagine
    from mscli.paths import places, shipped_profiles
    from mscli.planning.described_machine import machine
    from mscli.planning.plan import Plan
    from mscli.planning.speed import price_per_hour

    per_hour = price_per_hour(price) if price is not None else None
    catalog = load_catalog(shipped_profiles(), places().profiles).for_engine(overrides.engine)
    ways = catalog.ways(name) if name else None
    named = [catalog.profile(name)] if name and not ways else list(catalog.profiles.values())
    facts = load_gpus(shipped_profiles())
    found: list[tuple[str, Plan | None, str]] = []
    for card in sorted(facts):
        for number in _CARD_COUNTS:
            there = imagine(machine(f"{number}x {card}", facts))
            choice = (
                plan_ways(ways, catalog.models, there, overrides)
                if ways
                else plan_all(named, catalog.models, there, overrides)
            )
            plan = choice.chosen or next((item for item in choice.ranked if name and isinstance(item, Plan)), None)
            if plan and per_hour is not None:
                priced = _with_cost(plan, per_hour, catalog)
                plan = priced if isinstance(priced, Plan) else plan
            found.append((f"{number}x {card}", plan, choice.reason))
    return found


COMMANDS: Commands = {"plan": (plan, _EPILOG)}
