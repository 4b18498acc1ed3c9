"""The command tree: one module of this folder for each command, imported when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from mscli import __version__
from mscli.cli.options import Json
from mscli.cli.screen import open_screen
from mscli.errors import Code, MscliError

# The commands in the order of the help, by what they are for: one module of this folder each, but for the last row.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "run": ("up", "down", "restart", "chat", "launch", "service"),
    "look": ("status", "logs", "check", "env", "gpus"),
    "prepare": ("plan", "profiles", "pull", "weights", "engines", "config"),
    "repair": ("doctor",),
    "more": ("help", "version", "completion"),
}
VERBS = tuple(verb for verbs in GROUPS.values() for verb in verbs)


def tree(verbs: Sequence[str] = VERBS) -> typer.Typer:
    """The program with the given verbs. Building all of them takes longer than `mscli status` needs to answer."""
    app = typer.Typer(
        name="mscli",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": []},  # help.py answers -h and --help
    )
    app.callback(invoke_without_command=True)(_root)
    for verb in verbs:
        if verb in _OWN:
            app.command(verb, epilog=_OWN[verb][1])(_OWN[verb][0])
        else:
            import_module(f"mscli.cli.{verb}").register(app)
    return app


def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        sys.stdout.write(f"mscli {__version__}\n")


def _help(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND|CODE]", help="A command, or a cause code.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the help of a command, or explain a cause code.

    `mscli doctor` and a failed start print cause codes.
    """
    from mscli.diagnosis.causes import CAUSES

    screen, (code, *_) = open_screen(ctx, json), words or [""]
    cause = CAUSES[code]  # the help of commands is shown without Typer: see help.py
    if json:
        screen.data({"code": code, "summary": cause.summary, "remedy": cause.remedy})
    else:
        screen.paragraph(f"{code}: {cause.summary}")
        screen.paragraph(cause.remedy, "  ")


def _version(ctx: typer.Context, json: Json = False) -> None:
    """Show the version of mscli and of Python."""
    screen, python = open_screen(ctx, json), ".".join(map(str, sys.version_info[:3]))
    if json:
        screen.data({"mscli": __version__, "python": python})
    else:
        screen.text(f"mscli {__version__} (Python {python})")


def _completion(
    ctx: typer.Context,
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
    json: Json = False,
) -> None:
    """Print the completion script for bash, zsh or fish.

    bash: eval "$(mscli completion bash)" in ~/.bashrc. zsh: eval "$(mscli completion zsh)" in ~/.zshrc, after
    compinit. fish: mscli completion fish | source in config.fish
    """
    from mscli.cli.completion import SCRIPTS

    screen = open_screen(ctx, json)
    if shell not in SCRIPTS:
        raise MscliError(Code.USAGE, f"no completion for {shell}", f"One of: {', '.join(SCRIPTS)}")
    if json:
        screen.data({"shell": shell, "script": SCRIPTS[shell]})
    else:
        screen.text(SCRIPTS[shell])


# Commands without a module of their own, with their examples.
_OWN: Mapping[str, tuple[Any, str]] = {
    "help": (_help, "Examples: mscli help  |  mscli help up  |  mscli help weights prune  |  mscli help oom_kv"),
    "version": (_version, "Examples: mscli version  |  mscli version --json"),
    "completion": (_completion, 'Examples: eval "$(mscli completion bash)"  |  mscli completion fish'),
}
