"""How fast weights arrive and are checked, against the tools people would use instead, in one run on one machine.

    python benchmarks/weights_speed.py [--gigabytes 2] [--rounds 3] [--folder /dev/shm]

Prints a table and writes it to benchmarks/weights_speed.md. The hub is a process of its own on loopback.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
NAME = "speed/weights"
PULL = """
import sys, time
from pathlib import Path
from mscli.catalog.model import Source, Variant
from mscli.weights.ensure import ensure
from mscli.weights.progress import DOWNLOADING
class Stopwatch:
    looks = []
    def note(self, note): pass
    def progress(self, progress):
        if progress.stage == DOWNLOADING:
            self.looks.append((time.thread_time(), time.monotonic()))
source = Source("hub", "speed/weights", "main", ("*",), None)
variant = Variant("bench", "safetensors-hf", "bf16", 1, 0, 0, 1, "", source)
ensure(None, variant, Stopwatch())
(cpu_s, start_s), (cpu_end_s, end_s) = Stopwatch.looks[0], Stopwatch.looks[-1]
print(cpu_end_s - cpu_s, end_s - start_s)
"""
HASH = """
import sys, time
from pathlib import Path
from mscli.weights.listing import RemoteFile, file_is_right
path = Path(sys.argv[1])
start_s = time.monotonic()
assert file_is_right(path, RemoteFile(path.name, path.stat().st_size, sys.argv[2], sys.argv[2]))
print(time.monotonic() - start_s)
"""


@contextmanager
def hub(folder: Path, rate: int | None) -> Iterator[str]:
    command = [sys.executable, "-m", "support.hub", NAME, str(folder), *([str(rate)] if rate else [])]
    process = subprocess.Popen(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate("")


def timed(command: list[str], home: Path, endpoint: str) -> tuple[float, str]:
    """Wall seconds of a pull into an empty cache, and what it printed."""
    shutil.rmtree(home, ignore_errors=True)
    env = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    start_s = time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return time.monotonic() - start_s, done.stdout


def throughput(folder: Path, size: int, rate: int | None, rounds: int) -> tuple[float, float, float]:
    """Median bytes per second of `hf download` and of mscli, and the share of one core that mscli's progress takes."""
    hf_s, mscli_s, shares = [], [], []
    hf = [str(Path(sys.executable).with_name("hf")), "download", NAME]
    home = folder.parent / "home"
    with hub(folder, rate) as endpoint:
        for _ in range(rounds):
            hf_s.append(timed(hf, home, endpoint)[0])
            wall_s, printed = timed([sys.executable, "-c", PULL], home, endpoint)
            mscli_s.append(wall_s)
            cpu_s, pull_s = map(float, printed.split())
            shares.append(cpu_s / pull_s if pull_s else 0.0)
    shutil.rmtree(home, ignore_errors=True)
    return size / statistics.median(hf_s), size / statistics.median(mscli_s), statistics.median(shares)


def hashing(path: Path, rounds: int) -> tuple[float, float]:
    """Median bytes per second of `sha256sum` and of mscli's check, each on one core."""
    core = ["taskset", "-c", "0"]
    theirs, ours = [], []
    for _ in range(rounds):
        start_s = time.monotonic()
        digest = subprocess.run([*core, "sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[
            0
        ]
        theirs.append(time.monotonic() - start_s)
        command = [*core, sys.executable, "-c", HASH, str(path), digest]
        ours.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    size = path.stat().st_size
    return size / statistics.median(theirs), size / statistics.median(ours)


def shards(folder: Path, size: int) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for part in range(4):
        with (folder / f"model-{part + 1:05d}-of-00004.safetensors").open("wb") as file:
            for _ in range(0, size // 4, 1 << 20):
                file.write(os.urandom(1 << 20))


def table(rows: list[tuple[str, str, str, str, str]]) -> str:
    head = ("what", "theirs", "mscli", "ratio", "wanted")
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * 5, *rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    size = int(options.gigabytes * 1e9) // (4 << 20) * (4 << 20)
    mb = 1e6
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch) / "weights"
        shards(folder, size)
        hf, mscli, _ = throughput(folder, size, None, options.rounds)
        slow_rate = 20_000_000
        slow_hf, slow_mscli, share = throughput(folder, size, slow_rate, 1)
        theirs, ours = hashing(folder / "model-00001-of-00004.safetensors", options.rounds)
    rows = [
        ("`hf download`, loopback, MB/s", f"{hf / mb:.0f}", f"{mscli / mb:.0f}", f"{mscli / hf:.2f}", ">= 0.95"),
        (
            f"`hf download`, {slow_rate / mb:.0f} MB/s per connection, MB/s",
            f"{slow_hf / mb:.0f}",
            f"{slow_mscli / mb:.0f}",
            f"{slow_mscli / slow_hf:.2f}",
            ">= 0.95",
        ),
        ("`sha256sum`, one core, MB/s", f"{theirs / mb:.0f}", f"{ours / mb:.0f}", f"{ours / theirs:.2f}", ">= 0.90"),
        ("progress, share of one core", "", f"{share:.2%}", "", "< 2 %"),
    ]
    text = table(rows)
    print(text)
    about = (
        f"{size / 1e9:.1f} GB in 4 shards, {options.rounds} rounds (median), whole processes with their start-up;"
        f" mscli's figure includes checking every byte's SHA-256. {os.cpu_count()} cores, {platform.machine()},"
        f" Python {platform.python_version()}.\n"
    )
    (HERE / "weights_speed.md").write_text(f"# Speed of weights\n\n{about}\n{text}\n")


if __name__ == "__main__":
    main()
