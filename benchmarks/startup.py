"""How long the commands take over bare Python, and what `mscli up` adds to the engine's own start.

    python benchmarks/startup.py [--runs 20]

Run with the Python that has mscli installed. All figures are medians of interleaved runs in one go, so that a noisy
machine disturbs all of them alike. The limits are the project's own targets; nothing fails when one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MSCLI = [shutil.which("mscli", path=str(Path(sys.executable).parent)) or "mscli"]


def seconds(command: list[str], env: dict[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - begun


def engine_alone(argv: list[str], port: int, env: dict[str, str]) -> float:
    """Seconds from the spawn of the engine until its health check answers 200, without mscli around it."""
    begun = time.perf_counter()
    child = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not healthy(port):
        time.sleep(0.002)
    taken = time.perf_counter() - begun
    child.terminate()
    child.wait()
    return taken


def healthy(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as link:
            link.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return link.recv(12).endswith(b"200")
    except OSError:
        return False


def medians(cases: dict[str, Callable[[], float]], runs: int) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(runs):
        for name, case in cases.items():
            samples[name].append(case())
    return {name: statistics.median(values) for name, values in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as home:
        # With it set, Python compiles every module again at each start.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        env = {**os.environ, "MSCLI_HOME": home}
        quick = medians(
            {
                "bare Python": lambda: seconds([sys.executable, "-c", "pass"], env),
                "import typer": lambda: seconds([sys.executable, "-c", "import typer"], env),
                "mscli status --json, nothing runs": lambda: seconds([*MSCLI, "status", "--json"], env),
                "mscli --help": lambda: seconds([*MSCLI, "--help"], env),
                "mscli up --help": lambda: seconds([*MSCLI, "up", "--help"], env),
                "mscli, nothing runs": lambda: seconds(MSCLI, env),
                "a TAB: options": lambda: seconds([*MSCLI, "__complete", "up", "--"], env),
                "a TAB: profiles": lambda: seconds([*MSCLI, "__complete", "up", "small"], env),
            },
            runs,
        )
        up = json.loads(subprocess.check_output([*MSCLI, "up", "rehearsal", "--json"], env=env))["data"]
        quick |= medians(
            {
                "bare Python again": lambda: seconds([sys.executable, "-c", "pass"], env),
                "mscli status --json, one runs": lambda: seconds([*MSCLI, "status", "--json"], env),
            },
            runs,
        )
        subprocess.run([*MSCLI, "down"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        command, port = up["plan"]["command"]["argv"], up["instance"]["port"]

        def whole() -> float:
            taken = seconds([*MSCLI, "up", "rehearsal", "--port", str(port)], env)
            subprocess.run([*MSCLI, "down"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            return taken

        starts = medians({"engine": lambda: engine_alone(command, port, env), "up": whole}, max(5, runs // 3))
    report(quick, starts)


def report(quick: dict[str, float], starts: dict[str, float]) -> None:
    bare = statistics.mean((quick["bare Python"], quick["bare Python again"]))
    limits = {"mscli status --json, nothing runs": 65, "mscli status --json, one runs": 65, "mscli --help": 125}
    limits |= {"mscli up --help": 125, "mscli, nothing runs": 65, "a TAB: options": 60, "a TAB: profiles": 60}
    print(f"{'':40}{'ms':>8}{'over bare':>11}{'limit':>8}")
    for name, value in quick.items():
        print(f"{name:40}{value * 1e3:8.1f}{(value - bare) * 1e3:11.1f}{limits.get(name, ''):>8}")
    added = starts["up"] - starts["engine"]
    print(f"{'engine alone until healthy':40}{starts['engine'] * 1e3:8.1f}")
    print(f"{'mscli up rehearsal, whole process':40}{starts['up'] * 1e3:8.1f}")
    print(f"{'  added by mscli':40}{added * 1e3:8.1f}{'':>11}{300:>8}")


if __name__ == "__main__":
    main()
