"""The command tree: one module of this folder for each command, imported when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from mscli import __version__

# One module of this folder each, in the order of the help.
VERBS = (
    *("up", "down", "status", "logs", "restart", "chat", "check", "env", "service"),
    *("gpus", "plan", "profiles", "pull", "weights", "engines", "doctor"),
)


def tree(verbs: Sequence[str] = VERBS) -> typer.Typer:
    """The program with the given verbs. Building all of them takes longer than `mscli status` needs to answer."""
    app = typer.Typer(
        name="mscli",
        help="Run Mistral Small 3.1 24B and Magistral Small on your own GPUs: plan, start, chat, check, stop.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for verb in verbs:
        import_module(f"mscli.cli.{verb}").register(app)
    return app


def _root(
    ctx: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and stop.")
) -> None:
    if version:
        sys.stdout.write(f"mscli {__version__}\n")
    elif ctx.invoked_subcommand is None:
        sys.stdout.write(ctx.get_help() + "\n")
