"""Completion for bash, zsh and fish: the scripts, and the answer to a TAB.

A TAB starts Python once, so little is imported: commands, options and closed lists of words come from commands.json,
profiles, instances and GPUs from the names of files.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mscli.paths import places, shipped_profiles

FILES, FOLDERS = ":files", ":folders"
"""An answer that leaves the completion of a path to the shell."""
_PROGRAM: Mapping[str, Any] = {
    "options": [
        {"flags": ["--help"], "value": "", "no": False, "repeat": False, "help": "Show all commands"},
        {"flags": ["--version"], "value": "", "no": False, "repeat": False, "help": "Show the version"},
    ],
    "arguments": [],
}
DRIVER = Path("/proc/driver/nvidia/gpus")

SCRIPTS: Mapping[str, str] = {
    "bash": """# bash completion of mscli: eval "$(mscli completion bash)"
_mscli() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :files) compopt -o default ;;
            :folders) compopt -o dirnames ;;
            *) COMPREPLY+=("${line%%$'\\t'*}") ;;
        esac
    done < <(mscli __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _mscli mscli
""",
    "zsh": """#compdef mscli
# zsh completion of mscli: eval "$(mscli completion zsh)", after compinit
_mscli() {
    local line
    local -a found
    while IFS= read -r line; do
        case $line in
            :files) _files ;;
            :folders) _files -/ ;;
            *) found+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}") ;;
        esac
    done < <(mscli __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    _describe mscli found
}
if [ "$funcstack[1]" = _mscli ]; then _mscli "$@"; else compdef _mscli mscli; fi
""",
    "fish": """# fish completion of mscli: mscli completion fish | source
function __mscli
    set -l words (commandline -opc) (commandline -ct)
    for line in (mscli __complete $words[2..] 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path (commandline -ct)
            case :folders
                __fish_complete_directories (commandline -ct)
            case '*'
                echo $line
        end
    end
end
complete -c mscli -f -a '(__mscli)'
""",
}


def answer(words: Sequence[str]) -> None:
    """Print what may stand in the place of the last word, one a line, with a description after a tab."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        for word, about in candidates(words):
            sys.stdout.write(f"{word}\t{about}\n" if about else f"{word}\n")


def candidates(words: Sequence[str], driver: Path = DRIVER) -> Iterator[tuple[str, str]]:
    """What may stand in the place of the last of `words`, each with a description or ""; FILES or FOLDERS for a path.

    `driver`: where the NVIDIA driver lists its GPUs.
    """
    from mscli.cli.help import commands, longest_path, resolved

    *before, last = words or [""]
    known = commands()
    begun = resolved(before)
    path = longest_path(begun)
    rest = begun[len(path.split()) :]
    node = known.get(path, _PROGRAM)
    flag, typed = _unfinished(rest, last, node)
    if flag is not None:
        found = _values(str(flag["value"]), typed, driver)
    elif last.startswith("-"):
        found = _options(node, rest)
    else:
        places_taken = _positional(rest, node)
        found = [*_subcommands(path, known)] if not places_taken else []
        arguments = node["arguments"]
        if arguments:
            kind = str(arguments[min(len(places_taken), len(arguments) - 1)]["name"])
            found += _values(kind, typed, driver) if len(places_taken) < len(arguments) or "..." in kind else []
    lead = last[: len(last) - len(typed)] if "=" in last and flag is not None else ""
    for word, about in found:
        if word.startswith((typed, ":")):
            yield lead + word, about


def _unfinished(rest: list[str], last: str, node: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    """The option whose value is being typed (None: none is), and what of the value is there.

    bash divides words at `=`: `--engine=vl` comes as `--engine`, `=`, `vl`.
    """
    takes_value = {flag: it for it in node["options"] if it["value"] for flag in it["flags"]}
    if last == "=" and rest and rest[-1] in takes_value:
        return takes_value[rest[-1]], ""
    if len(rest) > 1 and rest[-1] == "=" and rest[-2] in takes_value:
        return takes_value[rest[-2]], last
    if rest and rest[-1] in takes_value:
        return takes_value[rest[-1]], last
    flag, equals, typed = last.partition("=")
    return (takes_value[flag], typed) if equals and flag in takes_value else (None, last)


def _positional(rest: Iterable[str], node: Mapping[str, Any]) -> list[str]:
    """The words after the command that are no option and no option's value."""
    takes_value = {flag for it in node["options"] if it["value"] for flag in it["flags"]}
    found, skip = [], False
    for word in rest:
        if not skip and not word.startswith("-") and word != "=":
            found.append(word)
        skip = word in takes_value
    return found


def _options(node: Mapping[str, Any], rest: Sequence[str]) -> list[tuple[str, str]]:
    """The options that are not there yet, by their long names; `--no-` too where an option has it."""
    found = []
    for it in node["options"]:
        names = [flag for flag in it["flags"] if flag.startswith("--")]
        names += [f"--no-{names[0].removeprefix('--')}"] if it["no"] else []
        if it["repeat"] or not set(rest) & {*it["flags"], *names}:
            found += [(name, str(it["help"])) for name in names]
    return found


def _subcommands(path: str, known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    lead = f"{path} " if path else ""
    for other, it in known.items():
        name = other.removeprefix(lead) if other.startswith(lead) else ""
        if name and " " not in name:
            yield name, str(it["summary"])


def _values(kind: str, typed: str, driver: Path) -> list[tuple[str, str]]:
    """The values of a kind, as the help writes it: `[PROFILE]`, `ENGINE`, `FILE`."""
    found: list[tuple[str, str]] = []
    for name in re.findall("[A-Z]+", kind):
        if name in _FROM_FILES:
            found += _FROM_FILES[name](typed, driver)
        else:
            from mscli.cli.help import listed

            found += [(word, "") for word in listed()["values"].get(name, ())]
    return found


def _profiles(*_: object) -> list[tuple[str, str]]:
    """Profiles, and the models that may be named in their place."""
    from mscli.catalog.names import way_names

    own, found = places().profiles, dict[str, str]()
    for path in (*(shipped_profiles() / "models").glob("[!.]*.yaml"), *(own / "models").glob("[!.]*.yaml")):
        found |= {path.stem: "model", **dict.fromkeys(way_names(path), "")}
    return sorted({**found, **{path.stem: "" for path in own.glob("[!.]*.yaml")}}.items())


def _instances(*_: object) -> list[tuple[str, str]]:
    try:
        return [(entry.name, "instance") for entry in sorted(os.scandir(places().instances), key=lambda it: it.name)]
    except OSError:
        return []


def _gpus(typed: str, driver: Path) -> list[tuple[str, str]]:
    """GPU indices, after those of a list that is being typed (`0,`); in the order of the bus, as the driver counts."""
    chosen, comma, _ = typed.rpartition(",")
    number = len(list(driver.iterdir())) if driver.is_dir() else 0
    free = [str(index) for index in range(number) if str(index) not in chosen.split(",")]
    return [(f"{chosen}{comma}{index}", "") for index in free]


_FROM_FILES: Mapping[str, Callable[[str, Path], list[tuple[str, str]]]] = {
    "PROFILE": _profiles,
    "NAME": _instances,
    "LOG": lambda *_: [*_instances(), (FILES, "")],
    "GPUS": _gpus,
    "FILE": lambda *_: [(FILES, "")],
    "PATH": lambda *_: [(FILES, "")],
    "FOLDER": lambda *_: [(FOLDERS, "")],
}
