"""Random rounds of commands and faults (tests/support/faults/rounds.py), by the hundred.

    python benchmarks/soak.py [--rounds 200] [--seed 1] [--workers 2] [--report benchmarks/soak.md]
    python benchmarks/soak.py --replay SEED

`--again N`: what went wrong is played N times more, and only what comes again is a failure; the rest is told.

Round N has the seed that was given, plus N. Run as root, every second worker plays as the user `nobody`. Each round in
which something is wrong is told with its seed and story, and its folder is kept; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support.faults.commands import load  # noqa: E402
from support.faults.rounds import FAULTS, Round, drawn, reserved_ports  # noqa: E402

NOBODY = 65534
KINDS = (
    "lost engine", "orphan", "wrong status", "traceback", "wrong exit code", "not one JSON object", "leftover file",
    "leftover lock", "leftover claim", "leftover port", "open folder", "stranger harmed", "hang", "next command",
    "unrest", "harness",
)  # fmt: skip


@dataclass(frozen=True)
class Played:
    """One round. `wrongs`: kind and text."""

    seed: int
    user: str
    real: bool
    commands: int
    faults: int
    seconds: float
    wrongs: tuple[tuple[str, str], ...]
    story: str


def play(seed: int, root: Path) -> Played:
    """Play one round in a folder of its own below `root`."""
    plan, begun = drawn(seed), time.monotonic()
    played = Round(plan, root / str(seed), reserved_ports())
    try:
        wrongs = [(wrong.kind, wrong.what) for wrong in played.play()]
    except Exception as fault:  # a fault of the harness is told like any other
        wrongs = [("harness", repr(fault))]
    faults = sum(len(step.faults) for step in plan.steps)
    return Played(
        seed, "root" if os.geteuid() == 0 else "user", plan.real, played.commands, faults, time.monotonic() - begun,
        tuple(wrongs), "\n".join(played.story),
    )  # fmt: skip


def work(first: int, end: int, stride: int, root: Path, user: int | None) -> None:
    """A worker: plays every `stride`th round as `user`, and writes one line for each."""
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    load()
    for seed in range(first, end, stride):
        sys.stdout.write(json.dumps(play(seed, root).__dict__) + "\n")
        sys.stdout.flush()


def reachable_by_nobody() -> bool:
    """Whether another user could run this Python and this checkout at all."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import mscli.cli.main, typer"], user=NOBODY, group=NOBODY, extra_groups=[],
            cwd="/", capture_output=True, check=False,
        )  # fmt: skip
    except OSError:
        return False
    return done.returncode == 0


def run(first: int, rounds: int, workers: int) -> Iterator[Played]:
    """Every round, in the order in which they end."""
    other = os.geteuid() == 0 and reachable_by_nobody()
    running = []
    for number in range(workers):
        user = NOBODY if other and number % 2 else None
        root = Path(tempfile.mkdtemp(prefix="mscli-soak-"))
        if user is not None:
            os.chown(root, user, user)
        words = ["--worker", str(first + number), str(first + rounds), str(workers), str(root), str(user or "")]
        running.append(subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True))
    readers = {worker.stdout.fileno(): worker.stdout for worker in running if worker.stdout}
    import select

    while readers:
        for handle in select.select([*readers], [], [])[0]:
            if line := readers[handle].readline():
                said = json.loads(line)
                yield Played(**{**said, "wrongs": tuple(map(tuple, said["wrongs"]))})
            else:
                del readers[handle]
    for worker in running:
        worker.wait()


def tell(played: Played) -> None:
    """Progress: a line for each round, and all of it where something is wrong."""
    what = ", ".join(sorted({kind for kind, _ in played.wrongs})) or "ok"
    real = ", real engine" if played.real else ""
    print(
        f"{played.seed:7} {played.user}{real}: {played.commands} commands, {played.seconds:.1f} s: {what}", flush=True
    )
    if played.wrongs:
        print(played.story, *(f"  WRONG {kind}: {text}" for kind, text in played.wrongs), sep="\n", flush=True)


def report(path: Path, all_: list[Played], first: int, seconds: float) -> None:
    """Write the report."""
    wrong = [played for played in all_ if played.wrongs]
    kinds = collections.Counter(kind for played in all_ for kind in {kind for kind, _ in played.wrongs})
    by_user = collections.Counter(played.user for played in all_)
    lines = [
        "# Random rounds of commands and faults",
        "",
        f"`python benchmarks/soak.py --rounds {len(all_)} --seed {first}`, {seconds / 60:.0f} minutes on "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, Linux {platform.release()}.",
        "",
        f"- {len(all_)} rounds (seeds {first} to {first + len(all_) - 1}), {sum(p.commands for p in all_)} commands, "
        f"{sum(p.faults for p in all_)} faults at random moments, besides odd streams, limits and masks",
        f"- {by_user['root']} rounds as root, {by_user['user']} as another user; "
        f"{sum(p.real for p in all_)} with the real llama.cpp, the others with a stand-in that obeys",
        f"- faults: {', '.join(FAULTS)}",
        f"- {len(all_) - len(wrong)} rounds in which nothing was wrong, {len(wrong)} in which something was",
        "",
        "| kind | rounds |",
        "| --- | ---: |",
        *(f"| {kind} | {kinds[kind]} |" for kind in KINDS),
        "",
        *(f"- seed {p.seed} ({p.user}): {kind}: `{_line(text)}`" for p in wrong for kind, text in p.wrongs),
    ]  # fmt: skip
    path.write_text("\n".join(lines).rstrip() + "\n")


def _line(text: str) -> str:
    return " ".join(text.replace("`", "'").split())[:200]


def came_again(seed: int, tries: int) -> bool:
    """Play a round again, each time in a process of its own; True once something is wrong."""
    words = [sys.executable, __file__, "--replay", str(seed)]
    return any(subprocess.run(words, check=False).returncode for _ in range(tries))


def main() -> int:
    """Play rounds; 1 where something was wrong."""
    if sys.argv[1:2] == ["--worker"]:
        first, end, stride, root, user = sys.argv[2:]
        work(int(first), int(end), int(stride), Path(root), int(user) if user else None)
        return 0
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--report", type=Path)
    parser.add_argument("--replay", type=int)
    parser.add_argument("--again", type=int, default=0, help="how often a round that went wrong is played again")
    asked = parser.parse_args()
    if asked.replay is not None:
        load()
        played = play(asked.replay, Path(tempfile.mkdtemp(prefix="mscli-soak-")))
        print(played.story)
        tell(played)
        return int(bool(played.wrongs))
    begun, all_ = time.monotonic(), []
    for played in run(asked.seed, asked.rounds, asked.workers):
        all_.append(played)
        tell(played)
        if asked.report and len(all_) % 20 == 0:
            report(asked.report, sorted(all_, key=lambda p: p.seed), asked.seed, time.monotonic() - begun)
    all_.sort(key=lambda played: played.seed)
    wrong = [played.seed for played in all_ if played.wrongs]
    once = [seed for seed in wrong if asked.again and not came_again(seed, asked.again)]
    print(
        f"{len(all_)} rounds, {len(wrong)} in which something was wrong ({len(once)} of them not in {asked.again} "
        f"further tries: {once}), {time.monotonic() - begun:.0f} s"
    )
    if asked.report:
        report(asked.report, all_, asked.seed, time.monotonic() - begun)
    return int(len(wrong) > len(once) or len(all_) < asked.rounds)


if __name__ == "__main__":
    sys.exit(main())
