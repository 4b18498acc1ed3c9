"""`mscli launch`: an agent, connected to a running instance."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.layout import Column
from mscli.cli.options import Instance, Json
from mscli.cli.screen import Screen, open_screen
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.agents.launch import Launch
    from mscli.agents.table import Agent, Deployment
    from mscli.instances.records import Record

ARG = "--arg"
"""What each word after `--` becomes: without it, the first would be taken for the instance."""
_AGENT = "The agent; without it, list the agents."
_ARGS = "Pass this argument to the agent (or put it after --)."
_EPILOG = "Examples: mscli launch  |  mscli launch vibe  |  mscli launch codex small-q4 --print"
_PRINT = "Print the command that would run; start nothing."
_COLUMNS = (Column("AGENT"), Column("NAME", 2), Column("MIN CTX", 1, right=True), Column("INSTALLED WITH"))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("launch", epilog=_EPILOG)(start)


def start(
    ctx: typer.Context,
    agent: Annotated[str | None, typer.Argument(metavar="[AGENT]", help=_AGENT)] = None,
    name: Instance = None,
    args: Annotated[list[str] | None, typer.Option(ARG, metavar="ARG", help=_ARGS)] = None,
    show: Annotated[bool, typer.Option("--print", help=_PRINT)] = False,
    json: Json = False,
) -> None:
    """Start a coding agent on a running instance.

    Arguments after -- go to the agent. Your own configuration of it is not changed: the address, model and context are
    passed in its environment, its flags, or a file in the instance's folder. --json implies --print.
    """
    from mscli.agents.launch import last, launch, refuse_unfit, warnings
    from mscli.agents.table import agents, deployment_of
    from mscli.instances.records import Records, the_one
    from mscli.paths import places

    screen = open_screen(ctx, json)
    if agent is None:
        _list(screen)
        return
    if agent not in agents():
        raise MscliError(Code.USAGE, f"there is no agent {agent!r}", f"One of: {', '.join(agents())}")
    chosen, records = agents()[agent], Records(places())
    record = the_one(records, name)
    deployment = deployment_of(record)
    refuse_unfit(chosen, deployment)
    _refuse_small(chosen, deployment, record)
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    made = launch(chosen, deployment, records.run_dir(record.name) / "agents" / agent, args or (), exempt)
    made.write()
    found = warnings(chosen, deployment, last(record, records))
    if json:
        screen.data({"argv": made.argv, "env": made.env, "unset": made.unset, "files": list(made.files),
                     "warnings": found})  # fmt: skip
        return
    for warning in found:
        screen.note(f"warning: {warning}. To check again: mscli check --for agents {record.name}", "yellow")
    if show:
        screen.text(_printed(made))
    else:
        if not chosen.tried:
            screen.note(f"note: {chosen.title} has not been tested with mscli", "yellow")
        _run(chosen, made)


def _list(screen: Screen) -> None:
    """Every agent, and whether it is here."""
    from mscli.agents.table import agents

    if screen.json_mode:
        known = {
            name: {"title": agent.title, "least_context": agent.least_context, "install": agent.install,
                   "path": shutil.which(agent.program)}
            for name, agent in agents().items()
        }  # fmt: skip
        screen.data({"agents": known})
        return
    rows = [
        (
            name,
            agent.title,
            f"{agent.least_context:,}",
            "(installed)" if shutil.which(agent.program) else agent.install,
        )
        for name, agent in agents().items()
    ]
    screen.table(_COLUMNS, rows)
    screen.note("To start one on the running instance: mscli launch AGENT")


def _refuse_small(agent: Agent, deployment: Deployment, record: Record) -> None:
    """Raise NO_FIT where the agent's first request does not fit the context, with what would."""
    from mscli.agents.launch import needed_context
    from mscli.lifecycle.decision import decide
    from mscli.paths import places

    needed = needed_context(agent, deployment)
    if deployment.context >= needed:
        return
    request = replace(record.request, overrides=replace(record.request.overrides, context=needed))
    way = f"mscli up {record.plan.profile} --ctx {needed} --replace"
    if record.name != record.plan.profile:
        way += f" --name {record.name}"
    try:
        decide(request, places(), record.name)
        hint = f"A larger context fits here: {way}"
    except MscliError as fault:
        hint = f"That context does not fit {record.plan.profile} here ({fault.message}). To see what does: mscli plan"
    raise MscliError(
        Code.NO_FIT,
        f"{agent.title} needs a context of {needed:,} tokens; {record.name} has {deployment.context:,}",
        hint,
        {"needed": needed, "context": deployment.context},
    )


def _printed(made: Launch) -> str:
    unset = [f"-u {name}" for name in made.unset]
    env = [f"{name}={shlex.quote(value)}" for name, value in made.env.items()]
    return " \\\n  ".join(["env", *unset, *env, shlex.join(made.argv)])


def _run(agent: Agent, made: Launch) -> None:
    """Become the agent: its terminal, its signals and its exit status are the user's."""
    program = shutil.which(agent.program)
    if program is None:
        raise MscliError(Code.AGENT_MISSING, f"{agent.title} is not installed", f"Install it: {agent.install}")
    env = {name: value for name, value in os.environ.items() if name not in made.unset}
    os.execve(program, made.argv, {**env, **made.env})
