"""How long a TAB takes in bash, zsh and fish, over one that only starts Python.

    PYTHONPATH=tests python benchmarks/completion.py [--runs 20]

Run with the Python that has mscli installed. Each shell runs on a terminal of its own; a TAB lasts from the key until
the completed word stands there. Beside `mscli` a command `bare` is completed by the same script, answered by Python
alone. Both take turns, so that a noisy machine disturbs both alike. The figures are medians of wall time; the target
is 60 ms. Where others use the machine: `chrt -f 1 python benchmarks/completion.py`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from support.terminal import Terminal

from mscli.cli.completion import SCRIPTS

LINES = {
    "a command": ("prof", "profiles"),
    "a profile": ("up rehea", "rehearsal"),
    "an option": ("up --dry", "--dry-run"),
}
SHELLS: Mapping[str, tuple[str, ...]] = {
    "bash": ("--norc", "--noprofile", "-i"),
    "zsh": ("-f", "-i"),
    "fish": ("--no-config", "-i"),
}
BARE = """import sys
for word in ("profiles", "rehearsal", "--dry-run"):
    if word.startswith(sys.argv[-1]):
        print(f"{word}\\twhat it is")
"""


def program(path: Path, *argv: str) -> None:
    """An executable that passes its arguments on."""
    path.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in argv) + ' "$@"\n')
    path.chmod(0o755)


def shell(name: str, folder: Path) -> Terminal:
    """The shell with both completions loaded."""
    script = folder / f"both.{name}"
    script.write_text(SCRIPTS[name] + SCRIPTS[name].replace("mscli", "bare"))
    first = {"zsh": "autoload -U compinit; compinit -D; ", "fish": "set -g fish_autosuggestion_enabled 0; "}
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "xterm", "LANG": "C.UTF-8"}
    made = Terminal([name, *SHELLS[name]], env, folder)
    made.press(f"{first.get(name, '')}source {script}\necho READ''Y\n")
    made.until("READY")
    return made


def tab(terminal: Terminal, line: str, word: str) -> float:
    """Seconds from the TAB until the word is there."""
    before = len(terminal.shown)
    terminal.press(line)
    terminal.read_until(lambda: line.rpartition(" ")[2] in terminal.shown[before:], "what was typed")
    typed = terminal.shown.count(word)
    begun = time.perf_counter()
    terminal.press("\t")
    rest = word[len(line.rpartition(" ")[2]) :]
    at = len(terminal.shown)
    terminal.read_until(lambda: terminal.shown.count(word) > typed or rest in terminal.shown[at:], word)
    taken = time.perf_counter() - begun
    terminal.press("\x15echo DON''E\n")  # Ctrl-U
    terminal.until("DONE")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "bare.py").write_text(BARE)
        program(folder / "bare", sys.executable, str(folder / "bare.py"))
        program(folder / "mscli", shutil.which("mscli", path=str(Path(sys.executable).parent)) or "mscli")
        print(f"{'shell':6} {'what':10} {'mscli':>9} {'python':>9} {'over it':>9}")
        for name in SHELLS:
            if shutil.which(name) is None:
                print(f"{name:6} not installed")
                continue
            terminal = shell(name, folder)
            for what, (line, word) in LINES.items():
                taken: dict[str, list[float]] = {"mscli": [], "bare": []}
                for _ in range(runs):
                    for command, seconds in taken.items():
                        seconds.append(tab(terminal, f"{command} {line}", word))
                ours, bare = (statistics.median(seconds) * 1000 for seconds in taken.values())
                print(f"{name:6} {what:10} {ours:6.1f} ms {bare:6.1f} ms {ours - bare:6.1f} ms")
            terminal.close()


if __name__ == "__main__":
    main()
