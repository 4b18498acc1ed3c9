"""The command tree: a module of this folder has a command or a few, imported when one is asked for; and the options
that several commands share, spelled, explained and checked once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from mscli import __version__
from mscli.cli.screen import open_screen
from mscli.errors import Code, MscliError

Commands = Mapping[str, tuple[Callable[..., Any], str] | typer.Typer]
"""Commands of one module: each is a function with its examples, or a tree of its own."""

# The commands in the order of the help, by what they are for.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "run": ("up", "down", "restart", "chat", "launch", "service"),
    "look": ("status", "logs", "check", "env", "gpus"),
    "prepare": ("plan", "profiles", "pull", "weights", "engines", "config"),
    "repair": ("doctor",),
    "more": ("help", "version", "completion"),
}
VERBS = tuple(verb for verbs in GROUPS.values() for verb in verbs)
# The modules of the commands that are not in one of their own name.
_MODULES = {
    "down": "up", "restart": "up", "service": "up", "logs": "status", "check": "chat", "pull": "weights",
    "env": "clients", "launch": "clients", "gpus": "machine", "engines": "machine",
    "help": "tree", "version": "tree", "completion": "tree",
}  # fmt: skip

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]
_WHICH = "The instance (default: the only one)."
Instance = Annotated[str | None, typer.Argument(metavar="[NAME]", help=_WHICH)]
InstanceOption = Annotated[str | None, typer.Option("--instance", "-i", "--name", metavar="NAME", help=_WHICH)]
TimeoutS = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Wait at most this long.")]
Events = Annotated[bool, typer.Option("--events", help="Print progress as JSON lines (same as --json=stream).")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Heal = Annotated[bool, typer.Option("--heal/--no-heal", help="Change the plan and retry if the start fails.")]
ProfileFile = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="Use a profile file in place of a named profile.")
]

# What `up` and `plan` change of a profile.
Context = Annotated[int | None, typer.Option("--ctx", metavar="N", min=1, help="Set the context length in tokens.")]
Gpus = Annotated[str | None, typer.Option("--gpus", metavar="GPUS", help="Use these GPUs (indices or UUIDs): 0,1.")]
Users = Annotated[
    int | None, typer.Option("--users", metavar="N", min=1, help="Plan for this many concurrent requests.")
]
Images = Annotated[int | None, typer.Option("--images", metavar="N", min=0, help="Allow this many images per request.")]
Kv = Annotated[str | None, typer.Option("--kv", metavar="TYPE", help="Set the KV cache type: f16, q8_0, q4_0, fp8.")]
Engine = Annotated[str | None, typer.Option("--engine", metavar="ENGINE", help="Use this engine only.")]
Container = Annotated[bool, typer.Option("--container", help="Run vLLM in a container (or --engine vllm-docker).")]
Variant = Annotated[str | None, typer.Option("--variant", metavar="VARIANT", help="Use this variant of the weights.")]
Prefer = Annotated[str | None, typer.Option("--prefer", metavar="WHAT", help="Prefer quality, speed or context.")]
ForAgents = Annotated[
    str | None, typer.Option("--for", metavar="CLIENT", help="Plan a context that coding agents can use: agents.")
]
Offload = Annotated[bool, typer.Option("--offload", help="Allow part of the weights in host memory.")]


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
        module = import_module(f"mscli.cli.{_MODULES.get(verb, verb)}")
        command = module.COMMANDS[verb]
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=verb)
        else:
            app.command(verb, epilog=command[1])(command[0])
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


COMMANDS: Commands = {
    "help": (_help, "Examples: mscli help  |  mscli help up  |  mscli help weights prune  |  mscli help oom_kv"),
    "version": (_version, "Examples: mscli version  |  mscli version --json"),
    "completion": (_completion, 'Examples: eval "$(mscli completion bash)"  |  mscli completion fish'),
}
