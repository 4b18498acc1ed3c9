"""From nothing to a first answer with the rehearsal model, in one run, beside the bare server and what else is on PATH.

    python benchmarks/first_answer.py [--runs 10]

Each way is taken in turn, and the medians of all are told with what they add to the bare server:

- the bare server: llama-server (or the one that mscli brings), with the command that mscli gives it
- mscli up: until the command has ended, then one question; and with the question that `up` asks itself
- Ollama, where `ollama` is on PATH: `ollama serve` with a store that holds the model; and one that runs already
- llama-swap, where it is on PATH: in front of the same server, and one that runs already with nothing loaded

Run with the Python that has mscli installed, on a quiet machine. mscli's own limit: 200 ms over the bare server.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MSCLI = [shutil.which("mscli", path=str(Path(sys.executable).parent)) or "mscli"]
MODEL = "rehearsal"
LIMIT_MS = 200
GGUF = Path(__file__).resolve().parents[1] / "mscli" / "rehearsal" / "rehearsal-q8_0.gguf"
LONGEST_S = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def answered(port: int, path: str = "/v1/chat/completions") -> bool:
    """Whether one question got an answer."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1, "stream": False}
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST_S)
    try:
        link.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = link.getresponse()
        return answer.status == 200 and b"content" in answer.read()
    except OSError:
        return False
    finally:
        link.close()


def until_answered(port: int) -> None:
    deadline = time.perf_counter() + LONGEST_S
    while not answered(port):
        if time.perf_counter() > deadline:
            raise SystemExit(f"nothing answered on port {port}")
        time.sleep(0.002)


@contextmanager
def running(argv: list[str], env: dict[str, str]) -> Iterator[None]:
    """A server in a process group of its own, ended with all that it started."""
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(argv, env=env, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()


def from_nothing(argv: list[str], port: int, env: dict[str, str]) -> float:
    begun = time.perf_counter()
    with running(argv, env):
        until_answered(port)
        return time.perf_counter() - begun


def mscli(env: dict[str, str], *args: str) -> str:
    return subprocess.run([*MSCLI, *args], env=env, capture_output=True, text=True, check=True).stdout


def up(env: dict[str, str], port: int, *flags: str) -> float:
    """Seconds of `mscli up`, and of one question where it asked none itself."""
    begun = time.perf_counter()
    mscli(env, "up", MODEL, "--port", str(port), *flags)
    if flags:
        until_answered(port)
    taken = time.perf_counter() - begun
    mscli(env, "down")
    return taken


def ollama(folder: Path) -> dict[str, Callable[[], float]]:
    """The ways through Ollama: it starts, and it runs already with nothing loaded."""
    port = free_port()
    env = {
        **os.environ,
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(folder / "models"),
        "OLLAMA_NO_CLOUD": "1",
        "HOME": str(folder),
    }
    recipe = folder / "Modelfile"
    recipe.write_text(f"FROM {GGUF}\n")
    serve = ["ollama", "serve"]
    with running(serve, env):
        deadline = time.perf_counter() + LONGEST_S
        create = ["ollama", "create", MODEL, "-f", str(recipe)]
        while subprocess.run(create, env=env, capture_output=True, check=False).returncode:
            if time.perf_counter() > deadline:
                raise SystemExit("ollama create failed")
            time.sleep(0.1)

    def loads() -> float:
        with running(serve, env):
            while not _listens(port):
                time.sleep(0.002)
            begun = time.perf_counter()
            until_answered(port)
            return time.perf_counter() - begun

    return {"ollama serve, from nothing": lambda: from_nothing(serve, port, env), "ollama, running": loads}


def llama_swap(folder: Path, argv: list[str], engine_port: int) -> dict[str, Callable[[], float]]:
    port = free_port()
    config = folder / "llama-swap.yaml"
    server = {"cmd": shlex.join(argv), "proxy": f"http://127.0.0.1:{engine_port}"}
    config.write_text(json.dumps({"models": {MODEL: server}}))
    swap = ["llama-swap", "-config", str(config), "-listen", f"127.0.0.1:{port}"]

    def loads() -> float:
        with running(swap, dict(os.environ)):
            while not _listens(port):
                time.sleep(0.002)
            begun = time.perf_counter()
            until_answered(port)
            return time.perf_counter() - begun

    return {
        "llama-swap, from nothing": lambda: from_nothing(swap, port, dict(os.environ)),
        "llama-swap, running": loads,
    }


def _listens(port: int) -> bool:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST_S)
    try:
        link.request("GET", "/v1/models")
        return link.getresponse().status == 200
    except OSError:
        return False
    finally:
        link.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as home:
        folder, port = Path(home), free_port()
        # With it set, Python compiles every module again at each start.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        env = {**os.environ, "MSCLI_HOME": home}
        started = json.loads(mscli(env, "up", MODEL, "--port", str(port), "--json"))["data"]
        mscli(env, "down")
        argv = started["plan"]["command"]["argv"]
        ways: dict[str, Callable[[], float]] = {
            "the bare server": lambda: from_nothing(argv, port, env),
            "mscli up --no-check, and a question": lambda: up(env, port, "--no-check"),
            "mscli up, with its own question": lambda: up(env, port),
        }
        if shutil.which("ollama"):
            ways |= ollama(folder)
        if shutil.which("llama-swap"):
            ways |= llama_swap(folder, argv, port)
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, way in ways.items():
                samples[name].append(way())
    report({name: statistics.median(values) * 1e3 for name, values in samples.items()})


def report(medians: dict[str, float]) -> None:
    bare = medians["the bare server"]
    print(f"{'medians, ms':40}{'':8}{'over bare':>11}{'limit':>8}")
    for name, value in medians.items():
        print(f"{name:40}{value:8.0f}{value - bare:11.0f}{LIMIT_MS if name.startswith('mscli') else '':>8}")


if __name__ == "__main__":
    main()
