"""Logs of any size: the last lines, in time and memory that their size does not drive up."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.instances.instance_records import write_record
from support.run_mscli import Mscli, Ran, free_port

from mscli.instances.log import LONGEST_LINE_BYTES, Lines, last_lines
from mscli.instances.records import Records
from mscli.paths import Places

MIB = 2**20


@pytest.fixture
def log(home: Path) -> Path:
    """The log of an instance that has stopped."""
    records = Records(Places(home / "config", home / "state", home / "data"))
    return write_record(records, "mine", None, "none", stopped_at=2.5).log


@pytest.fixture
def bounded(user_env: dict[str, str], tmp_path: Path) -> Callable[..., tuple[int, float, int]]:
    """Runs mscli with its output in a file: (exit code, CPU seconds, most memory in bytes)."""

    def run(*args: str) -> tuple[int, float, int]:
        code = (
            "import json, resource, subprocess, sys\n"
            "done = subprocess.run(sys.argv[2:], stdout=open(sys.argv[1], 'wb'))\n"
            "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
            "print(json.dumps([done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))"
        )
        argv = [sys.executable, "-c", code, str(tmp_path / "out"), sys.executable, "-m", "mscli", *args]
        told = subprocess.run(argv, env=user_env, capture_output=True, text=True, timeout=120, check=True).stdout
        return tuple(json.loads(told))

    return run


def test_one_line_of_40_mb_is_cut_and_costs_little(log: Path, bounded: Callable[..., tuple[int, float, int]]) -> None:
    with log.open("wb") as held:
        held.write(b"x" * 40 * MIB)
    code, seconds, memory = bounded("logs", "mine")
    assert (code, seconds < 3, memory < 100 * MIB) == (0, True, True), (seconds, memory)


@pytest.mark.parametrize("options", [(), ("-n", "100000000"), ("--json", "-n", "100000000"), ("--grep", "nothing")])
def test_a_sparse_file_of_1_gb_costs_one_reading(
    options: tuple[str, ...], log: Path, bounded: Callable[..., tuple[int, float, int]]
) -> None:
    with log.open("wb") as held:
        held.truncate(2**30)
        held.seek(2**30 - 6)
        held.write(b"\nlast\n")
    code, seconds, memory = bounded("logs", "mine", *options)
    assert (code, seconds < 20, memory < 150 * MIB) == (0, True, True), (seconds, memory)


def test_time_grows_with_the_size_and_no_faster(log: Path) -> None:
    def seconds(size: int) -> float:
        log.write_bytes(b"a line of a log\n" * (size // 16))
        begun = time.process_time()
        assert sum(1 for _ in last_lines(log, 10**8)) == size // 16
        return time.process_time() - begun

    assert seconds(16 * MIB) < 10 * seconds(4 * MIB) + 0.1


LINE = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r\n"), max_size=20)


@settings(deadline=None)
@given(
    lines=st.lists(LINE, max_size=30),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    whole=st.booleans(),
    n=st.integers(0, 40),
)
def test_the_last_lines_are_those_of_the_whole(
    lines: list[str], end: str, whole: bool, n: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "log"
    text = end.join(lines) + (end if whole and lines else "")
    path.write_bytes(text.encode())
    every = lines if whole or not lines or lines[-1] else lines[:-1]
    assert list(last_lines(path, None)) == every
    assert list(last_lines(path, n)) == (every[-n:] if n else [])


@given(text=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_blocks_may_be_cut_anywhere(text: bytes, cuts: list[int]) -> None:
    def lines(blocks: list[bytes]) -> list[str]:
        made = Lines()
        return [line for block in blocks for line in made.feed(block)] + list(made.end())

    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(places)]
    assert lines(parts) == lines([text])


def test_what_is_cut_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a" * (LONGEST_LINE_BYTES + 5) + b"\nb\n")
    first, second = last_lines(path, 2)
    assert first.endswith("aaa ... [5 bytes cut]")
    assert second == "b"


VLLM = """INFO 11-29 20:33:11 [api_server.py:1800] version 0.32.0
INFO 11-29 20:43:11 [core.py:1] loading
  continued
ERROR 11-29 20:53:11 [core.py:600] torch.OutOfMemoryError: CUDA out of memory
"""


def shown(ran: Ran) -> list[str]:
    assert ran.code == 0, ran.err
    return ran.out.splitlines()


def test_lines_are_chosen_by_pattern_and_time(mscli: Mscli, log: Path) -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now - 1200))
    recent = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now - 60))
    log.write_text(VLLM + f"time={stamp} level=INFO msg=old\ntime={recent} level=INFO msg=new\nno stamp\n")
    assert shown(mscli("logs", "mine", "--grep", "outofmemory")) == [VLLM.splitlines()[3]]
    assert shown(mscli("logs", "mine", "--grep", "OUTOF")) == []
    assert shown(mscli("logs", "mine", "--grep", "level", "-n", "1")) == [f"time={recent} level=INFO msg=new"]
    assert shown(mscli("logs", "mine", "--since", "10m")) == [f"time={recent} level=INFO msg=new", "no stamp"]
    assert len(shown(mscli("logs", "mine", "--since", "30m"))) == 3
    for option in (("--since", "yesterday-ish"), ("--grep", "(")):
        assert mscli("logs", "mine", *option).code == 2


def test_json_lists_the_lines(mscli: Mscli, log: Path) -> None:
    log.write_text('one "quoted"\ntwo \x1b[31mred\n')
    data = mscli("logs", "mine", "--json").data
    assert data == {"log": str(log), "lines": ['one "quoted"', "two \x1b[31mred"]}
    log.write_text("")
    assert mscli("logs", "mine", "--json").data["lines"] == []


def test_the_one_that_crashed_is_found_without_its_name(mscli: Mscli, home: Path, log: Path) -> None:
    log.write_text("old\n")
    first = mscli("up", "rehearsal", "--port", str(free_port()), "--json").data["instance"]
    os.kill(first["pid"], signal.SIGKILL)
    assert mscli("logs", "-n", "1").code == 0
    assert mscli("status").out.startswith("rehearsal  crashed")
    assert mscli("restart", "--json").data["instance"]["state"] == "ready"
