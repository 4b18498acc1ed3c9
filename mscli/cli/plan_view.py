"""How plans are shown: the JSON that scripts rely on; for people one screen with the choice and the ways beside it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import dropwhile
from typing import TYPE_CHECKING, Any

from mscli.catalog.profile import ENGINE_TITLES
from mscli.cli.layout import GIB, Column, clipped, command_lines, count, size, styled, wrapped
from mscli.cli.screen import Screen
from mscli.planning.plan import ENGINE_INSTALLABLE, ENGINE_MISSING, SAFE, TIGHT, Choice, Cost, GpuMemory, NoFit, Plan

if TYPE_CHECKING:
    from mscli.catalog.load import Catalog
    from mscli.cli.typed import Typed
    from mscli.engines.engine import Command
    from mscli.lifecycle.preview import Preview

_MOST_OTHERS = 5
_MOST_COMMAND_LINES = 2
_WIDEST_BAR = 60
# what holds the memory, how it is drawn, and its colour
_PARTS = (
    ("weights", "weights_bytes", "W", "blue"),
    ("projector", "projector_bytes", "P", "cyan"),
    ("KV cache", "kv_bytes", "K", "green"),
    ("compute", "compute_bytes", "C", "yellow"),
    ("graphs", "graphs_bytes", "G", "magenta"),
    ("runtime", "runtime_bytes", "R", "dim"),
    ("other processes", "held_bytes", "x", "red"),
    ("left", "margin_bytes", "·", ""),
)
_VERDICTS = {SAFE: ("fits", "green"), TIGHT: ("tight", "yellow")}
_OTHERS = (
    *(Column("PROFILE"), Column("VERDICT"), Column("CONTEXT", right=True), Column("TOK/S", 1, right=True)),
    *(Column("ENGINE", 2), Column("GPUS", 3), Column("MODEL", 4)),
)
_ALL = (
    *(Column("PROFILE"), Column("VERDICT"), Column("CONTEXT", 1, right=True), Column("TOK/S", 4, right=True)),
    *(Column("ENGINE", 3), Column("KV", 6), Column("GPUS", 5), Column("WHY", 2, clip=True)),
)
_CARDS = (
    *(Column("MACHINE"), Column("PROFILE"), Column("VERDICT", 3), Column("CONTEXT", 4, right=True)),
    *(Column("TOK/S", 2, right=True), Column("$/MTOK", right=True), Column("KV", 6), Column("WHY", 5, clip=True)),
)
LONG_NAME = re.compile(r"NVIDIA |GeForce | (?:Workstation )?Edition$| Generation$")
_OF_A_GPU = re.compile(r"^(?:GPU \d+ \([^)]*\): |profile \S+ )")
# A reason -> the clause that fits a column beside the longest names at 80 columns (16 characters).
_CLAUSES = (
    (re.compile(r"no GPU is visible.*"), "no GPU"),
    (re.compile(r".* has no GPU code"), "no GPU code"),
    (re.compile(r".*no docker or podman.*"), "no docker/podman"),
    (re.compile(r"the driver supports CUDA .*|.* needs NVIDIA driver .*"), "driver too old"),
    (re.compile(r"(?:\S+ on \S+ )?needs ([\d.]+) or newer"), r"needs CC \1"),
    (re.compile(r"needs (.*) of host RAM"), r"needs \1 RAM"),
)


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


def verdict(outcome: Plan | NoFit, named: bool = True) -> str:
    """The verdict in a few words: `fits, needs vLLM` where mscli can install it, `needs vLLM` where it cannot.

    `named` False, beside a column that names the engine: `needs engine`.
    """
    if isinstance(outcome, Plan):
        word, style = _VERDICTS[outcome.verdict]
        needs = f"needs {ENGINE_TITLES.get(outcome.engine, outcome.engine) if named else 'engine'}"
        if outcome.engine_state == ENGINE_MISSING:
            return styled(needs, "yellow")
        return styled(f"{word}, {needs}" if outcome.engine_state == ENGINE_INSTALLABLE else word, style)
    too_big = outcome.missing_bytes or outcome.cause in ("oom_weights", "host_ram")
    return styled("too big" if too_big else "unsupported", "red")


def why_not(outcome: Plan | NoFit) -> str:
    """Why a profile does not fit or has no engine, in one short clause; empty for one that can run."""
    if isinstance(outcome, Plan):
        reason = outcome.reasons[-1] if outcome.engine_state == ENGINE_MISSING else ""
    elif outcome.missing_bytes:
        return f"{size(outcome.missing_bytes)} short"
    else:
        reason = _OF_A_GPU.sub("", outcome.reasons[0]).partition("; ")[0] if outcome.reasons else ""
    return next((found.expand(clause) for said, clause in _CLAUSES if (found := said.fullmatch(reason))), reason)


def show_choice(screen: Screen, choice: Choice, catalog: Catalog, previewed: Preview | None, typed: Typed) -> None:
    """One screen: the choice, up to five other ways that fit, how many more there are, and what to type next."""
    chosen = choice.chosen
    if chosen is None:
        screen.paragraph(choice.reason, style="yellow")
    else:
        screen.paragraph(f"selected {chosen.profile}, {choice.reason}", style="bold")
        show_plan(screen, chosen, catalog.models[chosen.model].title, previewed, typed)
    others = _others(choice)
    fitting = [outcome for outcome in choice.ranked if isinstance(outcome, Plan) and outcome is not chosen]
    if others:
        screen.line()
        screen.table(_OTHERS, [_other_row(outcome, catalog) for outcome in others])
    if chosen is None and (one := first_to_start(choice)):
        screen.paragraph(f"To start one by name: {typed.up(one.profile)}")
    _show_rest(screen, len(fitting) - len(others), len(choice.ranked) - len(fitting) - bool(chosen), typed.every())


def first_to_start(choice: Choice) -> Plan | None:
    """The best plan whose engine is here or can be installed."""
    plans = (outcome for outcome in choice.ranked if isinstance(outcome, Plan))
    return next((plan for plan in plans if plan.engine_state != ENGINE_MISSING), None)


def _show_rest(screen: Screen, fit: int, too_big: int, command: str) -> None:
    said = [f"{fit} more {'fits' if fit == 1 else 'fit'}"] if fit else []
    said += [f"{too_big} {'does' if too_big == 1 else 'do'} not{'' if fit else ' fit'}"] if too_big else []
    if said:
        screen.paragraph(f"{', '.join(said)}: {command}", style="dim")


def _others(choice: Choice) -> list[Plan]:
    """Up to five plans beside the choice: two of the same model, the best of each other one, then what is next. Fewer
    where the choice fills the screen with bars of unlike GPUs."""
    rest = [each for each in choice.ranked if isinstance(each, Plan) and each is not choice.chosen]
    firsts: dict[str, int] = {}
    order: list[tuple[bool, int, Plan]] = []
    for outcome in rest:
        firsts[outcome.model] = firsts.get(outcome.model, 0) + 1
        own = choice.chosen is not None and outcome.model == choice.chosen.model
        order.append((firsts[outcome.model] > (2 if own else 1) or not outcome.gpus, len(order), outcome))
    bars = len(list(_alike(choice.chosen.memory))) if choice.chosen else 1
    most = max(1, _MOST_OTHERS - 2 * (bars - 1))
    taken = [outcome for _, _, outcome in sorted(order, key=lambda item: item[:2])][:most]
    models = list(dict.fromkeys(outcome.model for outcome in taken))
    return sorted(taken, key=lambda outcome: models.index(outcome.model))


def show_all(screen: Screen, choice: Choice, catalog: Catalog, typed: Typed) -> None:
    """Every verdict, by model, in one table, and what to type next."""
    if choice.ranked:
        by_model(screen, _ALL, choice.ranked, catalog, _row)
        screen.line()
    screen.paragraph(f"selected {choice.chosen.profile}, {choice.reason}" if choice.chosen else choice.reason)
    if one := choice.chosen or first_to_start(choice):
        screen.paragraph(f"To start {'it' if choice.chosen else 'one by name'}: {typed.up(one.profile)}")


def by_model(
    screen: Screen,
    columns: Sequence[Column],
    outcomes: Sequence[Plan | NoFit],
    catalog: Catalog,
    row: Callable[[Plan | NoFit], tuple[str, ...]],
) -> None:
    """Verdicts in one table, those of a model below its title; the model of the first comes first."""
    order = list(dict.fromkeys(outcome.model for outcome in outcomes))
    grouped = sorted(outcomes, key=lambda outcome: order.index(outcome.model))
    head, *lines = screen.laid_out(columns, [row(outcome) for outcome in grouped])
    screen.line(*head)
    blocks = len(lines) // len(grouped)  # lines of one row: more than one where the terminal is very narrow
    for number, outcome in enumerate(grouped):
        if outcome.model in order:
            order.remove(outcome.model)
            screen.line()
            screen.paragraph(catalog.models[outcome.model].title, style="bold")
        screen.lines(lines[number * blocks : (number + 1) * blocks])


def show_plan(screen: Screen, plan: Plan, title: str, previewed: Preview | None, typed: Typed | None = None) -> None:
    """A plan: what, how much memory on which GPU, how fast, at what cost, and the exact command. `title`: the model's.

    With `typed` in brief: without the arithmetic, a long command only by its beginning, and what to type for the rest.
    """
    brief = typed is not None
    context = next((step for step in plan.steps if step.startswith("context ")), f"context {plan.context:,} tokens")
    words = _words(previewed.command) if previewed and previewed.command else []
    lines = command_lines(words, screen.width, "    ")
    hidden = brief and len(lines) > _MOST_COMMAND_LINES
    screen.fields(
        (
            ("model", f"{title}, {plan.variant}"),
            ("engine", _engine(plan, previewed)),
            ("context", f"{context.removeprefix('context ')}, {plan.kv_type} KV cache, {_load(plan)}"),
            ("speed", _speed(plan)),
            ("cost", cost_text(plan.cost, plan.users, brief) if plan.cost else ""),
            ("API", api_text(plan.cost) if plan.cost and not brief else ""),
            ("memory", "" if plan.gpus else f"{size(plan.host_bytes)} of host memory, on the CPU"),
            ("start", typed.up(plan.profile) if typed else ""),
            ("command", _beginning(words, screen.width, typed.plan(plan.profile)) if typed and hidden else ""),
        )
    )
    show_memory(screen, plan.memory)
    if not brief:
        told = (context, *(reason for reason in plan.reasons if reason.startswith("takes ")))  # the bars show it
        for reason in (each for each in (*plan.steps, *plan.reasons) if each not in told):
            screen.paragraph(reason, "  - ", "    ")
    if words and not hidden:
        screen.line(styled("  command", "dim"))
        screen.lines([line] for line in lines)


def _words(command: Command) -> list[str]:
    """A command as a shell takes it: its variables, then its words, quoted."""
    settings = [f"{key}={shlex.quote(value)}" for key, value in command.env.items()]
    return settings + [shlex.quote(word) for word in command.argv]


def _beginning(words: Sequence[str], width: int | None, command: str) -> str:
    """A long command by its beginning (the program by its name alone), and the one that shows the whole of it."""
    whole = f" (full command: {command})"
    program, *rest = dropwhile(lambda word: "=" in word, words)
    return clipped(" ".join((program.rpartition("/")[2], *rest)), max((width or 80) - 11 - len(whole), 20)) + whole


def _engine(plan: Plan, previewed: Preview | None) -> str:
    where = f"GPU {_numbers(plan.gpus)}" if plan.gpus else "CPU"
    split = f", tensor parallel {plan.tensor_parallel}" if plan.tensor_parallel > 1 else ""
    missing = ""
    if previewed and not previewed.installed:
        missing = " (mscli up installs it)" if plan.engine_state == ENGINE_INSTALLABLE else " (not installed)"
    return f"{plan.engine} on {where}{split}{missing}"


def _load(plan: Plan) -> str:
    images = count(plan.images, "image") if plan.images else "no images"
    return f"{count(plan.users, 'user')}, {images}"


def _speed(plan: Plan) -> str:
    if plan.speed is None:
        return ""
    low, expected, high = plan.speed.decode_tok_s
    ttft = f"; first token after {plan.speed.ttft_s:.2f} s" if plan.speed.ttft_s else ""
    total = f"; {plan.speed.total_tok_s:.0f} tok/s for {plan.users} users" if plan.users > 1 else ""
    return f"{expected:.0f} tok/s expected ({low:.0f} to {high:.0f}){total}{ttft}"


def cost_text(cost: Cost, users: int, brief: bool) -> str:
    """The price of a million output tokens here; `brief`: beside an API's, which has a line of its own else."""
    api = f" ({cost.api}: ${cost.api_usd_per_mtok:.2f})" if brief and cost.api_usd_per_mtok is not None else ""
    return f"${cost.local_usd_per_mtok:.2f} per 1M output tokens at batch size {users}{api}"


def api_text(cost: Cost) -> str:
    """An API's price for them, and how many a day make this machine the cheaper one."""
    if cost.api_usd_per_mtok is None:
        return ""
    price = f"${cost.api_usd_per_mtok:.2f} from {cost.api}, {cost.api_date}"
    if cost.break_even_tokens is None:
        return price
    even, most = cost.break_even_tokens / 1e6, cost.most_tokens / 1e6
    if even > most:
        return f"{price}; always cheaper than this machine (at most {most:.1f}M tokens a day)"
    return f"{price}; break-even at {even:.1f}M of {most:.1f}M tokens a day"


def _numbers(gpus: Sequence[int]) -> str:
    """GPU numbers as people write them: 0, 1 or 0-7."""
    if len(gpus) > 2 and list(gpus) == list(range(gpus[0], gpus[-1] + 1)):
        return f"{gpus[0]}-{gpus[-1]}"
    return ", ".join(map(str, gpus))


def show_memory(screen: Screen, memory: Sequence[GpuMemory]) -> None:
    """One bar for each GPU, or for several that are alike: what each part takes of the card's memory."""
    for cards in _alike(memory):
        gpu = cards[0]
        which = f"GPU {_numbers([card.gpu for card in cards])} {gpu.name}{', each' if len(cards) > 1 else ''}"
        taken = f"{size(gpu.free_bytes - gpu.margin_bytes)} of the {size(gpu.free_bytes)} free"
        screen.paragraph(f"{which}: {taken}", "  ", "    ")
        if screen.width is not None:
            screen.line("    ", *_bar(gpu, min(_WIDEST_BAR, screen.width - 4)))
        items = [
            f"{letter} {name} {getattr(gpu, field) / GIB:.2f}"
            for name, field, letter, _ in _PARTS
            if getattr(gpu, field)
        ]
        for line in _items(items, screen.width):
            screen.line(styled(line, "dim"))


def _alike(memory: Sequence[GpuMemory]) -> Iterable[list[GpuMemory]]:
    groups: dict[tuple[object, ...], list[GpuMemory]] = {}
    for gpu in memory:
        same = (gpu.name, *(round(getattr(gpu, field) / GIB, 2) for _, field, _, _ in _PARTS))
        groups.setdefault(same, []).append(gpu)
    return groups.values()


def _bar(gpu: GpuMemory, width: int) -> Iterable[str]:
    for _, field, letter, style in _PARTS:
        yield styled(letter * round(getattr(gpu, field) / max(gpu.total_bytes, 1) * width), style)


def _items(items: Sequence[str], width: int | None) -> list[str]:
    """Items that are not broken, in lines."""
    kept = "\u00a0"  # a space that keeps words together
    lines = wrapped(" ".join(item.replace(" ", kept) + kept for item in items), width, "    ")
    return [line.replace(kept, " ").rstrip() for line in lines]


def _other_row(outcome: Plan, catalog: Catalog) -> tuple[str, ...]:
    gpus = _numbers(outcome.gpus) or "CPU"
    model = catalog.models[outcome.model].title
    context = f"{outcome.context:,}"
    return (outcome.profile, verdict(outcome, False), context, rate(outcome), outcome.engine, gpus, model)


def _row(outcome: Plan | NoFit) -> tuple[str, ...]:
    word, why = verdict(outcome, False), why_not(outcome)
    if isinstance(outcome, NoFit):
        return (outcome.profile, word, "", "", outcome.engine, "", "", why)
    gpus, context = _numbers(outcome.gpus) or "CPU", f"{outcome.context:,}"
    return (outcome.profile, word, context, rate(outcome), outcome.engine, outcome.kv_type, gpus, why)


def show_cards(screen: Screen, rows: Iterable[tuple[str, Plan | None, str]]) -> None:
    """One row for each machine: its choice, or why there is none."""
    screen.table(_CARDS, [_card_row(*row) for row in rows])


def _card_row(card: str, plan: Plan | None, why: str) -> tuple[str, ...]:
    card = LONG_NAME.sub("", card)  # `--on` takes the short name too
    if plan is None:
        return (card, "none", styled("too big", "red"), "", "", "", "", why.rpartition(": ")[2])
    cost = f"{plan.cost.local_usd_per_mtok:.2f}" if plan.cost else ""
    return (card, plan.profile, verdict(plan), f"{plan.context:,}", rate(plan), cost, plan.kv_type, "")


def rate(plan: Plan) -> str:
    """The expected tokens per second of one stream; empty where no speed is known."""
    return f"{plan.speed.decode_tok_s[1]:.0f}" if plan.speed else ""
