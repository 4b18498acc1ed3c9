"""`mscli profiles`: what can be run, with the verdict for this machine; and the user's own profiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.layout import Column, count
from mscli.cli.screen import Screen, open_screen
from mscli.cli.tree import Commands, Json
from mscli.cli.typed import say_old_name
from mscli.errors import Code, Exit, MscliError

if TYPE_CHECKING:
    from mscli.catalog.load import Catalog
    from mscli.catalog.model import Model
    from mscli.planning.plan import Choice, NoFit, Plan

app = typer.Typer()
_EPILOG = "Examples: mscli profiles  |  mscli profiles show small-q4  |  mscli profiles validate my.yaml"

_COLUMNS = (
    *(Column("PROFILE"), Column("VERDICT"), Column("CONTEXT", 2, right=True), Column("ENGINE", 1)),
    Column("DESCRIPTION", 3, clip=True),
)
_MOST_FITTING, _MOST_TOO_BIG = 10, 6  # with the titles of four models a screen of 24 lines


@app.callback(invoke_without_command=True, epilog=_EPILOG)
def profiles(
    ctx: typer.Context,
    all_: Annotated[bool, typer.Option("--all", "-a", help="List every profile, even if it does not fit.")] = False,
    json: Json = False,
) -> None:
    """List profiles with their verdict for this machine.

    The profiles that fit come first, best first. With --all every profile, and why it does not fit.
    """
    if ctx.invoked_subcommand is not None:
        return
    from mscli.lifecycle.decision import plan_all
    from mscli.lifecycle.snapshot import see
    from mscli.paths import places
    from mscli.planning.plan import Overrides

    screen = open_screen(ctx, json)
    catalog = _catalog()
    snapshot = see(places(), [(profile.engine, profile.device) for profile in catalog.profiles.values()])
    choice = plan_all(catalog.profiles.values(), catalog.models, snapshot, Overrides())
    for fault in catalog.broken:
        screen.note(f"warning: {fault.message}", "yellow")
    if json:
        rows = [_entry(outcome, catalog) for outcome in choice.ranked]
        broken = [{"message": fault.message, **fault.details} for fault in catalog.broken]
        screen.data({"profiles": rows, "chosen": choice.chosen and choice.chosen.profile, "broken": broken})
        return
    _show(screen, choice, catalog, all_)


def _show(screen: Screen, choice: Choice, catalog: Catalog, all_: bool) -> None:
    """The profiles that fit, or where none does the nearest; all of them with `all_`."""
    from mscli.cli.plan_view import by_model, first_to_start
    from mscli.planning.plan import Plan

    fitting = [outcome for outcome in choice.ranked if isinstance(outcome, Plan)]
    nearest = [outcome for outcome in choice.ranked if outcome not in fitting][:_MOST_TOO_BIG]
    shown = choice.ranked if all_ else [*fitting[:_MOST_FITTING], *([] if choice.chosen else nearest)]
    by_model(screen, _COLUMNS, shown, catalog, lambda outcome: _row(outcome, catalog))
    screen.line()
    if choice.chosen:
        screen.paragraph(f"mscli up selects {choice.chosen.profile}, {choice.reason}")
    else:
        screen.paragraph(f"no profile selected: {choice.reason}", style="yellow")
        if one := first_to_start(choice):
            screen.paragraph(f"To start one by name: mscli up {one.profile}")
    if len(shown) < len(choice.ranked):
        more, too_big = len(choice.ranked) - len(shown), len(choice.ranked) - len(fitting)
        screen.paragraph(
            f"{more} more ({too_big} {'does' if too_big == 1 else 'do'} not fit): mscli profiles --all", style="dim"
        )


@app.command("show", epilog="Example: mscli profiles show small-q4")
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="PROFILE", help="The profile.")],
    json: Json = False,
) -> None:
    """Show a profile and its model: every setting and its source."""
    from mscli.catalog.files import complete

    screen = open_screen(ctx, json)
    catalog = _catalog()
    profile = catalog.profile(name)
    model, variant = catalog.model_of(profile)
    say_old_name(screen, profile)
    if json:
        screen.data({"profile": profile, "model": model})
        return
    screen.text(complete(profile).rstrip())
    screen.text(f"# model {model.name}: {model.title}, {model.license}; variant {variant.name}: {variant.bytes_source}")
    screen.text("\n".join(f"# {line}".rstrip() for line in _advice(model)))


@app.command("validate", epilog="Example: mscli profiles validate my.yaml")
def validate(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Profile files (default: all profiles).")
    ] = None,
    json: Json = False,
) -> int:
    """Check profile files; report line and key of each mistake."""
    from mscli.catalog.load import load_profile_file

    screen = open_screen(ctx, json)
    catalog = _catalog()
    faults = [] if files else list(catalog.broken)
    good = [] if files else sorted(catalog.profiles)
    for file in files or ():
        try:
            good.append(load_profile_file(file, catalog).name)
        except MscliError as fault:
            faults.append(fault)
    if faults and (json or len(faults) == 1):
        raise faults[0] if len(faults) == 1 else _several(faults)
    for found in faults:
        screen.error(found)
    if json:
        screen.data({"valid": good})
    elif good:
        screen.paragraph(f"valid: {', '.join(good)}" if files else f"{count(len(good), 'profile')}, all valid")
    return Exit.FAILED if faults else Exit.DONE


@app.command("new", epilog="Example: mscli profiles new mine --from small-q4")
def new(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the new profile.")],
    base: Annotated[str | None, typer.Option("--from", metavar="PROFILE", help="Copy this profile.")] = None,
    json: Json = False,
) -> None:
    """Create a profile file with every key explained.

    An existing file is never overwritten.
    """
    from mscli.catalog.files import new_profile
    from mscli.paths import places

    screen = open_screen(ctx, json)
    based_on = _catalog().profile(base) if base is not None else None
    path = new_profile(name, based_on, places().profiles)
    if json:
        screen.data({"name": name, "path": str(path)})
    else:
        screen.text(f"{path}\nEdit it, then check it: mscli profiles validate {path}. Run it: mscli up {name}")


@app.command("update", epilog="Example: mscli profiles update small-gguf-q4")
def update(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="PROFILE", help="The profile.")],
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="COMMIT", help="Pin this commit (default: the newest).")
    ] = None,
    json: Json = False,
) -> None:
    """Pin a profile's repository to its newest commit.

    With --revision, pins that commit.
    """
    from mscli.lifecycle.pinned import pin
    from mscli.paths import places
    from mscli.weights.from_hub import newest

    screen = open_screen(ctx, json)
    catalog = _catalog()
    _, variant = catalog.model_of(catalog.profile(name))
    source = variant.source
    if source.kind != "hub":
        raise MscliError(Code.USAGE, f"the weights of {name} come from {source.kind}: nothing to update", "")
    commit = revision or newest(variant)
    pin(places(), source.repository, commit)
    if json:
        screen.data({"repository": source.repository, "before": source.revision, "now": commit})
    else:
        screen.text(f"{source.repository}: {source.revision} -> {commit}. Download it: mscli pull {name}")


def _advice(model: Model) -> list[str]:
    """What the model's makers recommend, and what mscli does with it."""
    sampling = model.sampling
    wanted = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens}
    said = ", ".join(f"{name} {value}" for name, value in wanted.items() if value is not None)
    lines = [f"recommended: {said or 'no sampling settings'}; at most {model.context_recommended} tokens of context"]
    if model.system_prompt:
        lines += [
            "system prompt, which `mscli chat` sends and `mscli env` exports for other clients (MSCLI_SYSTEM_PROMPT):"
        ]
        lines += [f"  {line}" for line in model.system_prompt.strip().splitlines()]
    return lines


def _catalog() -> Catalog:
    from mscli.lifecycle.pinned import catalogue
    from mscli.paths import places

    return catalogue(places())


def _entry(outcome: Plan | NoFit, catalog: Catalog) -> dict[str, object]:
    profile = catalog.profiles[outcome.profile]
    return {
        "name": profile.name,
        "title": profile.title,
        "engine": profile.engine,
        "model": profile.model,
        "variant": profile.variant,
        "verdict": outcome.verdict,
        "reasons": list(outcome.reasons),
        "context": getattr(outcome, "context", None),
        "engine_state": outcome.engine_state,
    }


def _row(outcome: Plan | NoFit, catalog: Catalog) -> tuple[str, ...]:
    from mscli.catalog.profile import ENGINE_TITLES
    from mscli.cli.plan_view import verdict, why_not
    from mscli.planning.plan import Plan

    profile = catalog.profiles[outcome.profile]
    context = f"{outcome.context:,}" if isinstance(outcome, Plan) else ""
    model, _, rest = profile.title.partition(", ")  # the model's name stands above
    title = rest if rest and catalog.models[outcome.model].title.startswith(model) else profile.title
    engine = ENGINE_TITLES.get(profile.engine, profile.engine)  # which has a column of its own
    title = ", ".join(part for part in title.split(", ") if part != engine)
    return (profile.name, verdict(outcome, False), context, profile.engine, why_not(outcome) or title)


def _several(faults: list[MscliError]) -> MscliError:
    return MscliError(
        Code.PROFILE_INVALID,
        f"{len(faults)} files are broken; the first: {faults[0].message}",
        faults[0].hint,
        {"faults": [{"message": fault.message, **fault.details} for fault in faults]},
    )


COMMANDS: Commands = {"profiles": app}
