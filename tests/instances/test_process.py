"""Processes: identity, groups, stopping. Every process here is real."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mscli.instances import process
from mscli.instances.process import MARK, Identity

# A worker tree as vLLM makes it: a parent, a child of its session, and one that has left the session.
TREE = """
import os, subprocess, sys, time
stubborn = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
for new_session in (False, True):
    child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, start_new_session=new_session)
    child.stdout.readline()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def spawned(tmp_path: Path) -> Iterator[list[tuple[subprocess.Popen[bytes], Identity, str]]]:
    """Spawns instances for a test and kills what is left of them."""
    started: list[tuple[subprocess.Popen[bytes], Identity, str]] = []
    yield started
    for child, leader, mark in started:
        process.send(process.members(leader, mark), signal.SIGKILL)
        child.wait(10)


def launch(
    spawned: list[tuple[subprocess.Popen[bytes], Identity, str]], folder: Path, code: str, mark: str
) -> Identity:
    log = folder / f"{mark}.log"
    child = process.spawn([sys.executable, "-u", "-c", code], {**os.environ, MARK: mark}, log, folder)
    leader = process.identify(child.pid)
    assert leader is not None
    spawned.append((child, leader, mark))
    deadline = time.monotonic() + 20
    while "ready" not in log.read_text():
        assert time.monotonic() < deadline, f"the test's process never came up: {log.read_text()}"
        process.wait_death(child.pid, 0.02)
    return leader


def test_a_zombie_counts_as_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    who = process.identify(child.pid)
    assert who is not None
    assert process.alive(who)
    assert child.stdin is not None
    child.stdin.close()
    assert process.wait_death(child.pid, 10)
    os.kill(child.pid, 0)  # not reaped: the pid still answers
    assert not process.alive(who)
    child.wait()


def test_a_reused_pid_is_somebody_else() -> None:
    me = process.identify(os.getpid())
    assert me is not None
    assert process.alive(me)
    assert not process.alive(dataclasses.replace(me, start_ticks=me.start_ticks - 1))
    assert not process.alive(dataclasses.replace(me, boot_id="another boot"))


def test_members_are_the_session_and_the_marked(spawned, tmp_path) -> None:
    leader = launch(spawned, tmp_path, TREE, "tree:1")
    found = process.members(leader, "tree:1")
    assert len(found) == 3
    assert leader.pid in found


def test_members_outlive_a_killed_leader(spawned, tmp_path) -> None:
    leader = launch(spawned, tmp_path, TREE, "tree:2")
    os.kill(leader.pid, signal.SIGKILL)
    assert process.wait_death(leader.pid, 10)
    assert not process.alive(leader)
    assert len(process.members(leader, "tree:2")) == 2


def test_members_of_one_instance_are_not_anothers(spawned, tmp_path) -> None:
    first = launch(spawned, tmp_path, TREE, "tree:3")
    second = launch(spawned, tmp_path, TREE, "tree:4")
    assert not set(process.members(first, "tree:3")) & set(process.members(second, "tree:4"))


def test_halt_ends_workers_that_ignore_sigterm(spawned, tmp_path) -> None:
    leader = launch(spawned, tmp_path, TREE, "tree:5")
    ended = process.halt(leader, "tree:5", (signal.SIGTERM,), grace_s=0.5)
    assert ended.survivors == ()
    assert ended.signal == "SIGKILL"
    assert process.members(leader, "tree:5") == ()


def test_halt_of_a_polite_process_needs_no_force(spawned, tmp_path) -> None:
    leader = launch(spawned, tmp_path, "print('ready', flush=True); import time; time.sleep(600)", "polite:1")
    ended = process.halt(leader, "polite:1", (signal.SIGTERM,), grace_s=10)
    assert (ended.signal, ended.survivors) == ("SIGTERM", ())
    assert ended.seconds < 5


def test_halt_of_nothing_says_so(spawned, tmp_path) -> None:
    leader = launch(spawned, tmp_path, "print('ready', flush=True)", "gone:1")
    assert process.wait_death(leader.pid, 10)
    assert process.halt(leader, "gone:1", (signal.SIGTERM,), 1).signal is None


def test_spawn_detaches_from_the_terminal(spawned, tmp_path) -> None:
    leader = launch(spawned, tmp_path, "print('ready', flush=True); import time; time.sleep(600)", "own:1")
    seen = process.stat(leader.pid)
    assert seen is not None
    assert seen.session == seen.group == leader.pid


def test_describe_names_pid_and_command(spawned, tmp_path) -> None:
    assert process.describe(os.getpid()).startswith(f"PID {os.getpid()} (")
    assert process.describe(2**22 + 1) == f"PID {2**22 + 1}"
