"""How a plan is shown: the JSON that scripts rely on, and memory bars for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mscli.cli.screen import Screen
from mscli.cli.size import GIB, size
from mscli.planning.plan import GpuMemory, NoFit, Plan

if TYPE_CHECKING:
    from mscli.catalog.model import Model
    from mscli.engines.engine import Command

_BAR_WIDTH = 60
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
