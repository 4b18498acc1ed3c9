"""How plans are shown: the JSON that scripts rely on; tables of verdicts and memory bars for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mscli.cli.screen import Screen
from mscli.cli.size import GIB, size
from mscli.errors import Exit
from mscli.planning.plan import Choice, GpuMemory, NoFit, Overrides, Plan

if TYPE_CHECKING:
    from mscli.catalog.load import Catalog
    from mscli.catalog.model import Model
    from mscli.engines.engine import Command
    from mscli.lifecycle.preview import Preview

_BAR_WIDTH = 60
_COUNTS = (1, 2, 4, 8)  # of each card of the catalogue
# what holds the memory, how it is drawn, and its colour
_PARTS = (
    ("weights", "weights_bytes", "blue"),
    ("projector", "projector_bytes", "cyan"),
    ("KV cache", "kv_bytes", "green"),
    ("compute", "compute_bytes", "yellow"),
    ("graphs", "graphs_bytes", "magenta"),
    ("runtime", "runtime_bytes", "bright_black"),
    ("others", "held_bytes", "red"),
    ("free", "margin_bytes", "white"),
)
_LETTERS = {"weights": "W", "projector": "P", "KV cache": "K", "compute": "C", "graphs": "G", "runtime": "R"}


def plan_json(
    outcome: Plan | NoFit,
    command: Command | None,
    argv: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The plan as scripts see it; `command` is what would run (or `argv` and `env` of what runs)."""
    from mscli.planning.plan import to_json

    if command is not None:
        argv, env = command.argv, command.env
    shown = None if argv is None else {"argv": list(argv), "env": dict(env or {}), "line": shlex.join(argv)}
    return {**to_json(outcome), "command": shown}


def show_plan(screen: Screen, plan: Plan, model: Model, command: Command | None) -> None:
    """Show a plan: what, how much memory on which GPU, how fast, at what cost, and the exact command."""
    screen.text(f"{plan.profile}: {model.title}, {plan.variant}, on {plan.engine}; verdict {plan.verdict}")
    screen.text(f"  context {plan.context} tokens, KV cache {plan.kv_type}, {_on(plan)}, {_load(plan)}")
    for reason in (*plan.steps, *plan.reasons):
        screen.text(f"  - {reason}")
    show_memory(screen, plan.memory)
    if plan.speed:
        low, expected, high = plan.speed.decode_tok_s
        ttft = f", first token after {plan.speed.ttft_s:.2f} s at 1,000 tokens" if plan.speed.ttft_s else ""
        screen.text(f"  speed: {expected:.0f} tokens/s predicted ({low:.0f} to {high:.0f}){ttft}")
    if plan.cost:
        api = f", ${plan.cost.api_usd_per_mtok:.2f} through the API" if plan.cost.api_usd_per_mtok else ""
        screen.text(f"  cost: ${plan.cost.local_usd_per_mtok:.2f} per million output tokens of one stream{api}")
    if command is not None:
        settings = "".join(f"{key}={shlex.quote(value)} " for key, value in command.env.items())
        screen.text(f"  command: {settings}{shlex.join(command.argv)}")


def show_memory(screen: Screen, memory: Sequence[GpuMemory]) -> None:
    """Draw one bar per GPU: what each part takes of the card's memory."""
    from rich.text import Text

    for gpu in memory:
        line = Text(f"  GPU {gpu.gpu} {gpu.name}\n  ")
        for name, field, colour in _PARTS:
            part = getattr(gpu, field)
            width = round(part / max(gpu.total_bytes, 1) * _BAR_WIDTH)
            letter = _LETTERS.get(name, "x" if name == "others" else "·")
            line.append(letter * width, style=colour)
        line.append(f"  {size(gpu.total_bytes)}\n  ")
        parts = [(name, getattr(gpu, field), colour) for name, field, colour in _PARTS]
        for name, part, colour in parts:
            if part:
                line.append(f"{_LETTERS.get(name, 'x' if name == 'others' else '·')} ", style=colour)
                line.append(f"{name} {part / GIB:.2f}  ")
        screen.show(line)


def _on(plan: Plan) -> str:
    if not plan.gpus:
        return f"on the CPU ({size(plan.host_bytes)} of host memory)"
    where = f"on GPU {', '.join(map(str, plan.gpus))}"
    return f"{where}, tensor parallel {plan.tensor_parallel}" if plan.tensor_parallel > 1 else where


def _load(plan: Plan) -> str:
    images = f"{plan.images} images per request" if plan.images else "text only"
    return f"{images}, {plan.users} user{'s' if plan.users != 1 else ''}"


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
