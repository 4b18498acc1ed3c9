"""The help of the program and of each command, where the user stands, and the answer to a word that is no command.

All of it from commands.json, which `docs/generate.py` writes from the command tree: Typer would cost 50 ms more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from mscli import __version__
from mscli.cli.layout import cells, styled, wrapped
from mscli.cli.screen import Screen
from mscli.errors import Code, MscliError

# What users of other tools type -> the command that does it here.
ALIASES: Mapping[str, tuple[str, ...]] = {
    **{"ps": ("status",), "stop": ("down",), "show": ("profiles", "show")},
    **{"run": ("up",), "serve": ("up",), "start": ("up",)},
}
_LISTS = "Instances: mscli status\nProfiles: mscli profiles\nDownloaded weights: mscli weights"
_REMOVES = "To stop an instance: mscli down NAME\nTo delete unused weights: mscli weights prune"
# Words that could mean several commands, or that must not delete anything -> what to type.
INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(("ls", "list"), _LISTS),
    **dict.fromkeys(("rm", "remove", "delete"), _REMOVES),
    "kill": "To stop an instance: mscli down NAME",
}
_ABOUT = "Run Mistral Small 3.1 24B and Magistral Small on your own GPUs."
_FIRST_STEPS = (
    ("mscli plan", "show what fits this machine"),
    ("mscli up", "start the best fit"),
    ('mscli chat "hello"', "talk to it"),
)
_LEAST_FOR_GROUPS = 60  # columns for the name of each group beside its commands
_LEAST_ROOM = 24  # columns for a description beside its name; with less, it goes below


@cache
def listed() -> Mapping[str, Any]:
    """What commands.json holds: every command by its path ("weights prune"), and the words that options take."""
    return dict(json.loads(Path(__file__).with_name("commands.json").read_text()))


def commands() -> Mapping[str, Mapping[str, Any]]:
    """Every command by its path, in the order of the help, with what its help says."""
    return dict(listed()["commands"])


def resolved(args: Sequence[str]) -> list[str]:
    """The arguments with another tool's word in place of the command it stands for here."""
    return [*ALIASES.get(args[0], args[:1]), *args[1:]] if args else []


def before_dashes(args: Sequence[str]) -> Sequence[str]:
    """mscli's own arguments: those before `--`."""
    return args[: args.index("--")] if "--" in args else args


def command_in(args: Sequence[str]) -> str:
    """The first word that is no option; "" where there is none."""
    return next((arg for arg in args if not arg.startswith("-")), "")


def asked_about(args: Sequence[str]) -> str | None:
    """The path of the command whose help is asked for by `help` or --help ("" for the program); None: none is.

    Raises USAGE for a word that is no command. The help of a cause code is left to `mscli help` itself.
    """
    own = before_dashes(args)
    words = [word for word in own if not word.startswith("-")]
    if words[:1] == ["help"] and not (words[1:] and words[1] in listed()["values"]["CODE"]):
        return of_words(words[1:])
    if not {"-h", "--help"} & set(own):
        return None
    return _path(words) if own[0] not in ("-h", "--help") else ""


def show_help(screen: Screen, path: str) -> None:
    """Show the help of a command, or of the program ("")."""
    if screen.json_mode:
        screen.data({"command": path, **commands()[path]} if path else {"commands": commands()})
    elif path:
        _show_command(screen, path, commands()[path])
    else:
        _show_program(screen)


def of_words(words: Sequence[str]) -> str:
    """The path that words of the command line name. Raises USAGE for what is no command."""
    path = _path(resolved(words))
    if words and len(path.split()) < len(resolved(words)):
        raise unknown(" ".join(words))
    return path


def unknown(word: str) -> MscliError:
    """The error for a word that is no command, with what was probably meant."""
    from mscli.catalog.types import nearest  # needed here only

    close = nearest(word, [path for path in commands() if " " not in path or " " in word], likeness=0.6)
    meant = f"Did you mean: mscli {close}" if close else "To see all commands: mscli help"
    return MscliError(Code.USAGE, f"no such command: {word}", INSTEAD.get(word, meant), {"nearest": close})


def show_standing(screen: Screen) -> None:
    """Show where the user stands: what runs, or how to begin. Waits as `mscli status` does."""
    from mscli.cli.instance_view import look_at, show_instances
    from mscli.instances.state import RUNNING
    from mscli.instances.store import Store
    from mscli.paths import places

    seen = look_at(Store(places()))
    if seen.instances:
        show_instances(screen, seen)
        screen.line()
        _pairs(screen, _next_steps([instance.name for instance, _ in seen.instances if instance.state in RUNNING]))
    else:
        screen.line(styled(f"mscli {__version__}", "bold"), "  ", "nothing is running")
        screen.line()
        _pairs(screen, [(f"  {command}", does) for command, does in _FIRST_STEPS])
    screen.line()
    screen.line(styled("all commands: mscli help", "dim"))


def _next_steps(running: Sequence[str]) -> list[tuple[str, str]]:
    """What to type next, with the name of an instance where several run."""
    if not running:
        return [("  mscli up", "start the best fit")]
    which = "" if len(running) == 1 else f" {running[0]}"
    chat = ('  mscli chat "hello"' if not which else f'  mscli chat{which} "hello"', "talk to it")
    return [chat, (f"  mscli logs{which} -f", "follow its log"), (f"  mscli down{which}", "stop it")]


def longest_path(words: Sequence[str]) -> str:
    """The longest path of a command that the words begin with; "" where the first one is none."""
    known = commands()
    return next((path for length in (2, 1) if (path := " ".join(words[:length])) in known), "")


def _path(words: Sequence[str]) -> str:
    """The same. Raises USAGE when the first one is no command."""
    path = longest_path(words)
    if words and not path:
        raise unknown(words[0])
    return path


def _show_program(screen: Screen) -> None:
    shown = [(path, it) for path, it in commands().items() if " " not in path]
    narrow = screen.width is not None and screen.width < _LEAST_FOR_GROUPS
    screen.paragraph(_ABOUT, style="bold")
    rows: list[tuple[str, str]] = []
    for group, members in groupby(shown, key=lambda row: row[1]["group"]):
        for number, (path, it) in enumerate(members):
            head = "  " if narrow else f"{'' if number else group:<9}"
            rows.append((f"{head}{path}", it["summary"]))
    _pairs(screen, rows)
    screen.paragraph("Options and examples of a command: mscli help COMMAND", style="dim")


def _show_command(screen: Screen, path: str, it: Mapping[str, Any]) -> None:
    children = [(f"  {other}", each["summary"]) for other, each in commands().items() if other.startswith(f"{path} ")]
    words = [str(argument["name"]) for argument in it["arguments"]]
    usage = f"mscli {' '.join([path, *(['[COMMAND]'] if children else []), *words, '[OPTIONS]'])}"
    screen.paragraph(f"Usage: {usage}", "", "  ")
    for text in (it["summary"], *it["about"]):
        screen.line()
        screen.paragraph(text)
    _section(screen, "Commands", children)
    _section(screen, "Arguments", [(f"  {each['name']}", each["help"]) for each in it["arguments"]])
    _section(screen, "Options", [(_spelled(each), each["help"]) for each in it["options"]])
    _section(screen, "Examples", [(f"  {line}", "") for line in it["examples"]])


def _section(screen: Screen, head: str, rows: Sequence[tuple[str, str]]) -> None:
    if rows:
        screen.line()
        screen.line(styled(head, "bold"))
        _pairs(screen, rows)


def _spelled(option: Mapping[str, Any]) -> str:
    """An option as the help shows it: `  -f, --file FILE`, with the long name always in the same column."""
    short = next((f"{flag}, " for flag in option["flags"] if not flag.startswith("--")), "    ")
    names = [flag for flag in option["flags"] if flag.startswith("--")]
    name = f"--[no-]{names[0].removeprefix('--')}" if option["no"] else ", ".join(names)
    return f"  {short}{name} {option['value']}".rstrip()


def _pairs(screen: Screen, rows: Sequence[tuple[str, str]]) -> None:
    """Names with their descriptions in a second column; below each name where the terminal is narrow."""
    for line in _paired(rows, screen.width):
        screen.line(line)


def _paired(rows: Sequence[tuple[str, str]], width: int | None) -> Iterator[str]:
    column = max(cells(name) for name, _ in rows) + 2
    narrow = width is not None and width - column < _LEAST_ROOM
    for name, does in rows:
        if not does:
            indent = " " * (len(name) - len(name.lstrip()))
            yield from wrapped(name.strip(), width, indent, f"{indent}  ")
        elif narrow:
            yield name.rstrip()
            yield from wrapped(does, width, " " * 8)
        else:
            yield from wrapped(does, width, f"{name:<{column}}", " " * column)
