"""Tables of verdicts: all profiles for one machine, and one row per card of the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mscli.cli.plan_view import show_plan
from mscli.cli.screen import Screen
from mscli.errors import Exit
from mscli.planning.plan import Choice, NoFit, Overrides, Plan

if TYPE_CHECKING:
    from mscli.catalog.load import Catalog
    from mscli.lifecycle.preview import Preview

_COUNTS = (1, 2, 4, 8)


def show_choice(screen: Screen, choice: Choice, catalog: Catalog, previewed: Preview | None) -> None:
    """All verdicts, then the chosen plan in full."""
    columns = ("PROFILE", "VERDICT", "ENGINE", "CONTEXT", "KV", "GPUS", "TOK/S", "WHY")
    screen.table(columns, [_row(outcome) for outcome in choice.ranked])
    if choice.chosen is None:
        screen.text(f"nothing chosen: {choice.reason}")
        return
    screen.text(f"\nchosen: {choice.chosen.profile}. {choice.reason}")
    show_plan(screen, choice.chosen, catalog.models[choice.chosen.model], previewed.command if previewed else None)
    for note in previewed.notes if previewed else ():
        screen.note(f"note: {note}", "yellow")


def show_all_cards(screen: Screen, overrides: Overrides, name: str | None) -> int:
    """What would be chosen on 1, 2, 4 and 8 of every card of the catalogue, headless."""
    rows = _all_cards(overrides, name)
    if screen.json_mode:
        from mscli.planning.plan import to_json

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
        return Exit.DONE
    columns = ("MACHINE", "PROFILE", "VERDICT", "CONTEXT", "KV", "TP", "TOK/S", "WHY")
    screen.table(columns, [_card_row(*row) for row in rows])
    return Exit.DONE


def _all_cards(overrides: Overrides, name: str | None) -> list[tuple[str, Plan | None, str]]:
    from mscli.catalog.gpus import load_gpus
    from mscli.catalog.load import load_catalog
    from mscli.lifecycle.decision import plan_all
    from mscli.lifecycle.what_if import imagine
    from mscli.paths import places, shipped_profiles
    from mscli.planning.machine import machine

    catalog = load_catalog(shipped_profiles(), places().profiles)
    profiles = [catalog.profile(name)] if name else list(catalog.profiles.values())
    facts = load_gpus(shipped_profiles())
    found = []
    for card in sorted(facts):
        for count in _COUNTS:
            choice = plan_all(profiles, catalog.models, imagine(machine(f"{count}x {card}", facts)), overrides)
            plan = choice.chosen or next((item for item in choice.ranked if name and isinstance(item, Plan)), None)
            found.append((f"{count}x {card}", plan, choice.reason))
    return found


def _row(outcome: Plan | NoFit) -> tuple[str, ...]:
    if isinstance(outcome, NoFit):
        return (outcome.profile, "no", outcome.engine, "-", "-", "-", "-", "; ".join(outcome.reasons))
    gpus = ",".join(map(str, outcome.gpus)) or "cpu"
    why = "; ".join((*outcome.steps, *outcome.reasons))
    context = f"{outcome.context:,}"
    return (outcome.profile, outcome.verdict, outcome.engine, context, outcome.kv_type, gpus, _rate(outcome), why)


def _card_row(card: str, plan: Plan | None, why: str) -> tuple[str, ...]:
    if plan is None:
        return (card, "none", "no", "-", "-", "-", "-", why)
    tensor_parallel = str(plan.tensor_parallel)
    return (card, plan.profile, plan.verdict, f"{plan.context:,}", plan.kv_type, tensor_parallel, _rate(plan), why)


def _rate(plan: Plan) -> str:
    return f"{plan.speed.decode_tok_s[1]:.0f}" if plan.speed else "-"
