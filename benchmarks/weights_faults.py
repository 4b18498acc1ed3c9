"""The fault matrix of a pull: what happens to the network, the disk and the process, and what it costs in bytes.

    python benchmarks/weights_faults.py [--kills 40] [--seed 1]

Every pull is a process of its own against a hub on loopback, with the real huggingface_hub and hf_xet. Each case ends
with a pull that must leave complete files of the right SHA-256. Prints a table and writes benchmarks/weights_faults.md.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
sys.path.insert(0, str(TESTS))

from support.hub import Hub  # noqa: E402
from support.hub.faults import API, CORRUPT, CUT, STALL, STATUS, WHOLE, WRONG_RANGE  # noqa: E402
from support.hub.server import black_hole  # noqa: E402
from support.weights.pulls import REPOSITORY, content  # noqa: E402

FILES = {
    "model-00001-of-00002.safetensors": content(12_000_000, 1),
    "model-00002-of-00002.safetensors": content(6_000_000, 2),
    "config.json": b"{}",
}
LARGE = [name for name in FILES if name.endswith("safetensors")]
TOTAL = sum(map(len, FILES.values()))
RATE = 2_500_000  # bytes per second and connection: slow enough that a kill falls into the transfer
CONNECTIONS, CHUNK = 8, 1 << 17  # 64 KiB gathered by mscli, and 64 KiB on their way when the process ends


@dataclass(frozen=True)
class Case:
    """`allowed`: bytes that may be fetched twice in one run, with the reason."""

    name: str
    run: Callable[[Bench], None]
    runs: int
    allowed: int
    reason: str


class Bench:
    """One run's hub and cache."""

    def __init__(self, hub: Hub, folder: Path, dice: random.Random) -> None:
        self.hub, self.home, self.dice = hub, folder / "home", dice

    def env(self, **more: str) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        return {**clean, "HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home), **more}

    def start(self, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, TESTS / "support" / "weights" / "pulls.py", *FILES]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.env(**more), stdout=pipe, stderr=pipe, text=True)

    def finish(self, **more: str) -> None:
        """A pull that must succeed."""
        process = self.start(**more)
        _, errors = process.communicate(timeout=120)
        if process.returncode:
            raise AssertionError(f"the pull failed: {errors}")

    def cut_off(self, how: int) -> None:
        """A pull that is ended by a signal at a random byte."""
        process = self.start()
        self.hub.wait_for_bytes(self.dice.randrange(1, TOTAL * 9 // 10))
        process.send_signal(how)
        process.communicate(timeout=10)

    def whole(self) -> bool:
        """Every file is in the snapshot with the right digest, and nothing unfinished is left."""
        shown = {path.name: path for path in self.home.glob("hub/models--*/snapshots/*/*")}
        right = (
            hashlib.sha256(shown[name].read_bytes()).digest() == hashlib.sha256(FILES[name]).digest() for name in FILES
        )
        return set(shown) == set(FILES) and all(right) and not list(self.home.glob("hub/*/blobs/*mscli*"))


def kill(bench: Bench) -> None:
    bench.cut_off(signal.SIGKILL)
    bench.finish()


def kill_five_times(bench: Bench) -> None:
    for _ in range(5):
        process = bench.start()
        bench.hub.wait_for_bytes(bench.dice.randrange(1, TOTAL // 6))
        process.kill()
        process.communicate()
    bench.finish()


def interrupt(bench: Bench) -> None:
    bench.cut_off(signal.SIGINT)
    bench.finish()


def faults(kind: str, **more: object) -> Callable[[Bench], None]:
    """A case in which two random points of the large files have a fault of this kind."""

    def run(bench: Bench) -> None:
        for _ in range(2):
            name = bench.dice.choice(LARGE)
            bench.hub.fault(kind, name, at=bench.dice.randrange(len(FILES[name])), **more)
        bench.finish()

    return run


def corrupt(bench: Bench) -> None:
    bench.hub.fault(CORRUPT, LARGE[1], at=bench.dice.randrange(len(FILES[LARGE[1]])))
    bench.finish()


def rate_limit(bench: Bench) -> None:
    bench.hub.fault(STATUS, API, status=429, headers={"Retry-After": "1"})
    bench.hub.fault(STATUS, LARGE[0], at=bench.dice.randrange(12_000_000), status=429, headers={"Retry-After": "1"})
    bench.finish()


def expire(bench: Bench) -> None:
    process = bench.start()
    bench.hub.wait_for_bytes(bench.dice.randrange(1, TOTAL // 2))
    bench.hub.expire_addresses()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def two_at_once(bench: Bench) -> None:
    both = [bench.start(), bench.start()]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


def first_of_two_killed(bench: Bench) -> None:
    first = bench.start()
    bench.hub.wait_for_bytes(TOTAL // 4)
    second = bench.start()
    assert second.stdout is not None
    while "waiting" not in second.stdout.readline():
        assert second.poll() is None
    first.kill()
    first.communicate()
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors


def disk_full(bench: Bench) -> None:
    bench.home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", bench.home], check=True)
    try:
        process = bench.start()
        bench.hub.wait_for_bytes(TOTAL // 4)
        free = os.statvfs(bench.home)
        with (bench.home / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, free.f_bavail * free.f_frsize - 3_000_000)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1, "the full disk went unnoticed"
        assert "disk_full" in errors, errors
        (bench.home / "filler").unlink()
        bench.finish()
        assert bench.whole()
        shutil.copytree(bench.home, kept := bench.home.with_name("kept"), symlinks=True)
    finally:
        subprocess.run(["umount", "-l", bench.home], check=True)
    shutil.rmtree(bench.home)
    kept.rename(bench.home)


def xet_stalls(bench: Bench) -> None:
    bench.hub.add(REPOSITORY, FILES, xet=True)
    with black_hole() as bench.hub.cas_url:
        bench.finish()


def xet_killed(bench: Bench) -> None:
    """Killed while Xet works, and gone on over plain HTTP: what came by one way is not fetched by the other."""
    bench.hub.add(REPOSITORY, FILES, xet=True)
    process = bench.start()
    time.sleep(bench.dice.uniform(0.3, 0.6))
    process.kill()
    process.communicate()
    bench.finish(HF_HUB_DISABLE_XET="1")


def hf_killed(bench: Bench) -> None:
    """The same kill, with `hf download`."""
    command = [Path(sys.executable).with_name("hf"), "download", REPOSITORY]
    pipe = subprocess.DEVNULL
    process = subprocess.Popen(command, env=bench.env(), stdout=pipe, stderr=pipe)
    bench.hub.wait_for_bytes(bench.dice.randrange(TOTAL // 4, TOTAL * 9 // 10))
    process.kill()
    process.wait()
    subprocess.run(command, env=bench.env(), stdout=pipe, stderr=pipe, check=True)


def cases(kills: int) -> list[Case]:
    chunks, why = CONNECTIONS * CHUNK, "128 KiB per connection"
    return [
        Case("no fault", lambda bench: bench.finish(), 3, 0, ""),
        Case("kill -9 at a random point", kill, kills, chunks, why),
        Case("kill -9 five times in a row", kill_five_times, 4, 5 * chunks, f"{why}, per kill"),
        Case("Ctrl-C at a random point", interrupt, 10, chunks, why),
        Case("connection cut, twice", faults(CUT), 10, 0, ""),
        Case("connection stalls, twice", faults(STALL), 5, 0, ""),
        Case("500 and 503", faults(STATUS, status=503), 5, 0, ""),
        Case("429 with Retry-After, hub and CDN", rate_limit, 3, 0, ""),
        Case("range ignored", faults(WHOLE), 3, chunks, "the wrong answer is dropped unread"),
        Case("wrong range sent", faults(WRONG_RANGE), 3, chunks, "the wrong answer is dropped unread"),
        Case("signed address expires", expire, 3, 0, ""),
        Case("corrupt body", corrupt, 5, len(FILES[LARGE[1]]), "that one file: the hub has one hash per file"),
        Case("disk becomes full (tmpfs)", disk_full, 3, chunks, why),
        Case("two pulls at once", two_at_once, 5, 0, ""),
        Case("two at once, the first killed", first_of_two_killed, 3, chunks, why),
        Case("Xet storage stalls", xet_stalls, 2, 0, ""),
        Case("kill -9 under Xet, on over HTTP", xet_killed, 5, chunks, why),
    ]


@contextmanager
def bench(seed: int) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as folder, Hub(Path(folder) / "cas") as hub:
        hub.rate = RATE
        hub.add(REPOSITORY, FILES)
        yield Bench(hub, Path(folder), random.Random(seed))


def measure(case: Case, seed: int) -> tuple[str, ...]:
    """One row: runs, how many ended whole, the most bytes fetched twice and their bound, seconds per run."""
    whole, twice, start_s = 0, 0, time.monotonic()
    for run in range(case.runs):
        with bench(seed * 1000 + run) as one:
            case.run(one)
            whole += one.whole()
            twice = max(twice, sum(one.hub.bytes_sent_twice(name) for name in FILES))
    seconds = (time.monotonic() - start_s) / case.runs
    good = whole == case.runs and twice <= case.allowed
    bound = f"{case.allowed:,}" + (f" ({case.reason})" if case.reason else "")
    verdict = "yes" if good else "NO"
    return case.name, str(case.runs), f"{whole} of {case.runs}", f"{twice:,}", bound, verdict, f"{seconds:.1f}"


def compare_hf(seed: int, runs: int) -> tuple[str, ...]:
    twice = []
    for run in range(runs):
        with bench(seed * 1000 + run) as one:
            hf_killed(one)
            twice.append(sum(one.hub.bytes_sent_twice(name) for name in FILES))
    return "for comparison: `hf download`, kill -9", str(runs), "", f"{max(twice):,}", "", "", ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    head = ("fault", "runs", "whole and verified", "bytes fetched twice (most)", "allowed", "kept", "s per run")
    rows = [head, ("---",) * len(head)]
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    for case in cases(options.kills):
        rows.append(measure(case, options.seed))
        print("| " + " | ".join(rows[-1]) + " |", flush=True)
    rows.append(compare_hf(options.seed, 3))
    print("| " + " | ".join(rows[-1]) + " |", flush=True)
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    about = (
        f"{TOTAL:,} bytes in {len(FILES)} files, {RATE / 1e6:g} MB/s per connection, seed {options.seed}. Every"
        " pull is a process of its own; a run is whole when each file has the SHA-256 that was published and nothing"
        " unfinished is left. Bytes fetched twice are counted by the hub, what lay in the socket of a killed process"
        " included.\n"
    )
    (HERE / "weights_faults.md").write_text(f"# Fault matrix of a pull\n\n{about}\n{text}\n")
    if any(row[5] == "NO" for row in rows):
        sys.exit("a fault cost more than it may")


if __name__ == "__main__":
    main()
