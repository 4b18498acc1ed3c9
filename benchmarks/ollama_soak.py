"""Two instances of one model with different contexts, side by side on the real `ollama` on PATH, for an hour.

    python benchmarks/ollama_soak.py [--minutes 60] [--seed 1]

Two users at once, one for each instance, chat with it, look at it, start it again while it runs, and take it down and
up again, by chance. The model is the rehearsal's, of 2 million parameters, on the CPU; it lies in the store of a user
whose own server runs beside. Prints what was done and what was wrong, and ends with 1 if anything was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.ollama.tiny import TAG, give, hashes, loaded, program, tags, write_profile
from support.run_mscli import Ran, call, environment

from mscli.inventory.ports import owner

CONTEXTS = {"one": 2048, "two": 4096}
DEEDS = {"chat": 6, "look": 2, "again": 1, "cycle": 2}
PAUSE_S = 2.0
REPLY = "scripted stand-in"


class User(threading.Thread):
    """Works with one instance until `deadline`; counts deeds, and keeps what was wrong."""

    def __init__(self, name: str, env: Mapping[str, str], deadline: float, seed: int) -> None:
        super().__init__()
        self.instance, self.context, self._env = name, CONTEXTS[name], env
        self._deadline, self._dice = deadline, random.Random(f"{seed} {name}")
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.ports: set[int] = set()
        self._url = ""

    def run(self) -> None:
        """Until the deadline; whatever is wrong is kept, and the work goes on."""
        self._deed("up")
        while time.monotonic() < self._deadline:
            self._deed(self._dice.choices([*DEEDS], [*DEEDS.values()])[0])
            time.sleep(self._dice.uniform(0, PAUSE_S))

    def _deed(self, name: str) -> None:
        self.done[name] += 1
        try:
            getattr(self, f"_{name}")()
        except (AssertionError, KeyError, httpx.HTTPError, subprocess.TimeoutExpired) as fault:
            self.wrong.append(f"{time.strftime('%H:%M:%S')} {name} {self.instance}: {fault!r}")
            print(self.wrong[-1], flush=True)

    def _mscli(self, *args: str) -> Ran:
        done = call(*args, env=self._env, timeout_s=300)
        assert done.code == 0, f"mscli {' '.join(args)}: exit {done.code}: {done.out[-600:]} {done.err[-600:]}"
        return done

    def _up(self) -> None:
        asked = ("up", "tiny", "--name", self.instance, "--ctx", str(self.context), "--yes", "--json")
        instance = self._mscli(*asked).data["instance"]
        self.ports.add(instance["port"])
        self._url = instance["base_url"].removesuffix("/v1")
        self._look()

    def _again(self) -> None:
        before = self._url
        self._up()
        assert self._url == before, f"it moved from {before} to {self._url}"

    def _cycle(self) -> None:
        self._mscli("down", self.instance)
        self._up()

    def _chat(self) -> None:
        said = self._mscli("chat", "hello", "--name", self.instance).out
        assert REPLY in said, f"it said {said!r}"

    def _look(self) -> None:
        """mscli and the server itself say the same: this model, with its own context, and no other."""
        shown = self._mscli("status", self.instance, "--json").data["instances"][0]
        assert (shown["state"], shown["note"], shown["context"]) == ("ready", None, self.context), str(shown)
        held = loaded(self._url)
        assert held == {f"mscli/{self.instance}:latest": self.context}, str(held)


@contextmanager
def own_server(folder: Path, env: Mapping[str, str]) -> Iterator[str]:
    """The user's own server, which has the model; its root."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "user-server.log").open("wb") as log:
        own = {**env, "OLLAMA_HOST": host, "OLLAMA_NO_CLOUD": "1"}
        server = subprocess.Popen([str(program()), "serve"], env=own, stdout=log, stderr=log)
    try:
        give(f"http://{host}")
        yield f"http://{host}"
    finally:
        server.terminate()
        server.wait(30)


def left_over(home: Path, ports: set[int], url: str) -> dict[str, list[str]]:
    """What is left of the instances after the last `down`: processes, ports (unless somebody else has them by now), and
    models."""
    models = [name for name in tags(url) if name.startswith("mscli/")]
    stores = [str(path) for path in home.parent.rglob("manifests/*/mscli/*")]
    processes = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_ours(entry, home)]
    listening = [str(port) for port in ports if (pid := owner(port)) and _is_ours(Path(f"/proc/{pid}"), home)]
    shown = [f"{entry.name} {(entry / 'cmdline').read_bytes()!r}" for entry in processes]
    return {"processes": shown, "ports": listening, "models": [*models, *stores, *loaded(url)]}


def _is_ours(process: Path, home: Path) -> bool:
    try:
        return process.name != str(os.getpid()) and str(home).encode() in (process / "environ").read_bytes()
    except OSError:
        return False


def soak(folder: Path, minutes: float, seed: int) -> bool:
    """True if nothing was wrong."""
    home = folder / "home"
    env = environment(folder, home)
    write_profile(home / "config" / "profiles")
    user_env = {key: value for key, value in env.items() if key != "MSCLI_HOME"}
    with own_server(folder, user_env) as url:
        store = folder / ".ollama" / "models"
        before, begun = hashes(store), time.monotonic()
        users = [User(name, env, begun + minutes * 60, seed) for name in CONTEXTS]
        for user in users:
            user.start()
        for user in users:
            user.join()
        call("down", "--all", "--purge", env=env, timeout_s=300)
        left = left_over(home, {port for user in users for port in user.ports}, url)
        same = hashes(store) == before
        version = httpx.get(f"{url}/api/version").json()["version"]
    done = sum((user.done for user in users), Counter[str]())
    wrong = [fault for user in users for fault in user.wrong]
    print(json.dumps({
        "ollama": version, "model": TAG, "minutes": round((time.monotonic() - begun) / 60, 1), "done": dict(done),
        "wrong": wrong, "left": left, "store_unchanged": same,
    }, indent=1))  # fmt: skip
    return not wrong and not any(left.values()) and same


def main() -> int:
    """Runs it as asked; 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if program() is None:
        sys.exit("no ollama on PATH")
    with tempfile.TemporaryDirectory(prefix="mscli-soak-") as folder:
        return 0 if soak(Path(folder), asked.minutes, asked.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
