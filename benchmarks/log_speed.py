"""How long `mscli doctor --log` takes for 5 MB of log, its start included, and how much memory for 100 MB.

    python benchmarks/log_speed.py [--runs 5]

Prints benchmarks/log_speed.md. The logs are mixed from the lines of recorded ones, at random by a fixed seed: of each
engine by itself, of all engines and all labelled failures together, and the same with a word of its own behind every
line, so that none is known from another one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

MSCLI = shutil.which("mscli", path=str(Path(sys.executable).parent)) or "mscli"
RECORDED = Path(__file__).parents[1] / "tests" / "diagnosis"
ENGINES = ("ollama", "vllm", "llama", "transformers", "mistralrs")
LETTERS = "ghijklmnopqrstuvwxyz"
MB = 2**20
REFERENCE = "sum(n * n for n in range(5_000_000))"


def lines_of(engine: str) -> list[str]:
    logs = [path for path in sorted(RECORDED.rglob("*.log")) if engine in f"{path.parent.name} {path.name}"]
    return [line for path in logs for line in path.read_text(errors="replace").splitlines() if line.strip()]


def failures() -> Iterator[str]:
    for name in ("cases-2", "fresh", "fresh-2"):
        for row in (RECORDED / f"{name}.jsonl").read_text().splitlines():
            yield from (line for line in json.loads(row)["log"].splitlines() if line.strip())


def mixed(lines: Sequence[str], size_bytes: int, words: bool) -> Iterator[str]:
    chance, size = random.Random(1), 0
    while size < size_bytes:
        line = chance.choice(lines) + (f" {''.join(chance.choices(LETTERS, k=8))}\n" if words else "\n")
        yield line
        size += len(line.encode())


def write(log: Path, lines: Iterable[str]) -> None:
    """Line by line: the memory of this process counts as its children's until they are programs of their own."""
    with log.open("w") as file:
        file.writelines(lines)


def used(command: Sequence[str], env: dict[str, str]) -> float:
    """Seconds of processor time that a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak_bytes(log: Path, env: dict[str, str]) -> int:
    child = subprocess.Popen([MSCLI, "doctor", "--log", log], env=env, stdout=-3, stderr=-3)
    return os.wait4(child.pid, 0)[2].ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it set, Python compiles every module again at each start
    every = [line for engine in ENGINES for line in lines_of(engine)] + list(failures())
    mixes = {engine: mixed(lines_of(engine), 5 * MB, words=False) for engine in ENGINES}
    mixes["all engines and failures"] = mixed(every, 5 * MB, words=False)
    mixes["the same, no line twice"] = mixed(every, 5 * MB, words=True)
    with tempfile.TemporaryDirectory() as folder:
        env, log = {**os.environ, "MSCLI_HOME": f"{folder}/home"}, Path(folder, "log")
        print("# How fast a log is read\n\nMade by `python benchmarks/log_speed.py`.\n")
        print("| 5 MB of log | processor time | beside a fixed sum in Python |\n| --- | --- | --- |")
        for name, lines in {"one line": ["x"], **mixes}.items():
            write(log, lines)
            pairs = [
                (used([MSCLI, "doctor", "--log", str(log)], env), used([sys.executable, "-c", REFERENCE], env))
                for _ in range(runs)
            ]
            taken, beside = (min(one) for one in zip(*pairs, strict=True))
            print(f"| {name} | {taken:.2f} s | {taken / beside:.2f} |")
        print(f"\nThe least of {runs} runs each, the program's start included. The sum: `{REFERENCE}`.\n")
        peaks = []
        for size in (5, 100):
            write(log, mixed(every, size * MB, words=True))
            peaks.append(peak_bytes(log, env) / MB)
        print(f"Memory at most: {peaks[0]:.0f} MB for 5 MB, {peaks[1]:.0f} MB for 100 MB.")


if __name__ == "__main__":
    main()
