"""The random rounds find what they look for: a fault of each kind, planted in mscli, is found."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from support.faults.commands import Conditions, Program, load
from support.faults.rounds import Fault, Plan, Round, Step, drawn, reserved_ports

from mscli.__main__ import run
from mscli.instances.process import MARK

pytestmark = pytest.mark.rounds


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    load()


def instances() -> Path:
    return Path(os.environ["MSCLI_HOME"]) / "state" / "instances"


def after(verb: str, harm: Callable[[], object]) -> Program:
    """mscli, which does harm when it has done what it was asked: `verb`, as the first words of the command line."""

    def program() -> None:
        try:
            run()
        finally:
            if " ".join(sys.argv[1:]).startswith(verb):
                harm()

    return program


def otherwise(verb: str, change: Callable[[str], str], code: int | None = None) -> Program:
    """mscli, which says something else than it would, or ends with another code."""

    def program() -> None:
        if sys.argv[1] != verb:
            run()
        said = StringIO()
        try:
            with redirect_stdout(said):
                run()
        except SystemExit as end:
            sys.stdout.write(change(said.getvalue()))
            sys.exit(end.code if code is None else code)

    return program


def stray(mark: str = "one:stray", handles: tuple[int, ...] = ()) -> None:
    """Leave a process behind; with a mark, it is one of an instance."""
    env = {**os.environ, MARK: mark} if mark else {}
    left = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True, pass_fds=handles, env=env)
    with (Path(os.environ["HOME"]) / "strays").open("a") as pids:
        pids.write(f"{left.pid}\n")


def keep_socket(kind: int, address: object) -> None:
    held = socket.socket(kind)
    held.bind(address)
    if kind == socket.AF_INET:
        held.listen()
    stray("", (held.fileno(),))


def keep_lock() -> None:
    import fcntl

    with (instances() / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stray("", (lock.fileno(),))


def raise_fault() -> None:
    raise ValueError("planted")


def harm_strangers() -> None:
    subprocess.run(["pkill", "-P", str(os.getppid()), "-x", "sleep"], check=False)


def forget_profile() -> None:
    (Path(os.environ["MSCLI_HOME"]) / "config" / "profiles" / "one.yaml").unlink()


UP = Step(((0.0, ("up", "one", "--json", "--timeout", "30"), Conditions()),), ())
REUSED = Step(UP.commands, (Fault("reused pid", "one", 0.0, 0),))
DOWN = Step(((0.0, ("down", "--all", "--json"), Conditions()),), ())
PURGE = "down --all --purge"
PLANTED: dict[str, tuple[Program, tuple[Step, ...]]] = {
    "lost engine": (after("up", lambda: (instances() / "one" / "record.json").unlink()), (UP,)),
    "orphan": (after(PURGE, stray), (UP,)),
    "wrong status": (otherwise("status", lambda text: text.replace('"ready"', '"starting"')), (UP,)),
    "traceback": (after("up", raise_fault), (UP,)),
    "wrong exit code": (otherwise("down", str, 4), (UP, DOWN)),
    "leftover file": (after(PURGE, lambda: (instances() / ".record.json.1").touch()), (UP,)),
    "not one JSON object": (otherwise("up", lambda text: text * 2), (UP,)),
    "leftover lock": (after(PURGE, keep_lock), (UP,)),
    "leftover claim": (
        after(PURGE, lambda: keep_socket(socket.AF_UNIX, f"\0mscli-port-{reserved_ports() + 39}")),
        (UP,),
    ),
    "leftover port": (after(PURGE, lambda: keep_socket(socket.AF_INET, ("127.0.0.1", reserved_ports() + 38))), (UP,)),
    "hang": (after("down", lambda: __import__("time").sleep(60)), (DOWN,)),
    "open folder": (after(PURGE, lambda: instances().chmod(0o777)), (UP,)),
    "next command": (after("down", forget_profile), (UP, DOWN)),
    "stranger harmed": (after("down", harm_strangers), (UP, REUSED, DOWN)),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_fault_is_found(kind: str, tmp_path: Path) -> None:
    program, steps = PLANTED[kind]
    played = Round(Plan(1, False, steps), tmp_path / "round", reserved_ports(), program, longest_s=20.0)
    if kind == "hang":
        played.longest_s = 3.0
    try:
        found = {wrong.kind for wrong in played.play()}
    finally:
        strays = tmp_path / "round" / "strays"
        for pid in strays.read_text().split() if strays.exists() else ():
            subprocess.run(["kill", "-KILL", pid], check=False, stderr=subprocess.DEVNULL)
    assert kind in found


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    assert Round(Plan(4, False, (UP, DOWN, UP)), tmp_path / "round", reserved_ports()).play() == []
    assert not (tmp_path / "round").exists()


def test_a_seed_gives_the_same_round() -> None:
    assert drawn(7) == drawn(7)
    assert len({drawn(seed) for seed in range(100)}) == 100
