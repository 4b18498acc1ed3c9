"""Whatever ends a pull, the bytes that arrived stay, and two pulls of one repository share one download."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import SUPPORT
from support.hub import Hub
from support.hub.faults import STALL
from support.weights.pulls import GGUF, REPOSITORY, Heard, content, pull, whole

from mscli.weights.partial import partial_paths

PULLS = SUPPORT / "weights" / "pulls.py"
WEIGHTS = content(6_000_000)
LOST_AT_MOST = 8 * (1 << 17)  # for each connection 64 KiB gathered, and 64 KiB on their way


@pytest.fixture
def published(hub: Hub) -> Hub:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    hub.rate = 1_500_000
    return hub


@contextmanager
def pulling() -> Iterator[subprocess.Popen[str]]:
    """A pull in a process of its own."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, PULLS, GGUF], stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_kill_at_any_point_loses_no_more_than_a_chunk(published: Hub) -> None:
    points = random.Random(7)
    kills = 3
    for _ in range(kills):
        with pulling() as process:
            published.wait_for_bytes(points.randrange(600_000, 1_500_000))
            process.kill()
    published.rate = None
    heard = Heard()
    assert whole(pull(listener=heard).model, WEIGHTS)
    assert heard.codes == ["resumed"]
    assert published.bytes_sent_twice(GGUF) <= kills * LOST_AT_MOST


def test_interrupt_keeps_what_arrived_and_ends_at_once(published: Hub) -> None:
    with pulling() as process:
        published.wait_for_bytes(1_500_000)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=5)
        assert process.returncode == -signal.SIGINT, f"Ctrl-C ended the pull with {process.returncode}: {errors}"
    heard = Heard()
    published.rate = None
    assert whole(pull(listener=heard).model, WEIGHTS)
    assert published.bytes_sent_twice(GGUF) <= LOST_AT_MOST
    kept = next(note for note in heard.notes if note.code == "resumed")
    assert float(kept.message.split()[-2]) > 400_000 / 2**20, kept.message


def test_interrupt_during_a_stall_ends_at_once(published: Hub) -> None:
    published.fault(STALL, GGUF, at=1_000_000, times=None)
    with pulling() as process:
        published.wait_for_bytes(1_000_000)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=5)
        assert process.returncode != 0, "an interrupted pull must not end as if it were whole"


def test_two_pulls_at_once_share_one_download(published: Hub) -> None:
    with pulling() as first:
        published.wait_for_bytes(100_000)
        heard = Heard()
        assert whole(pull(listener=heard).model, WEIGHTS)
        told, errors = first.communicate(timeout=20)
        assert told.splitlines()[-1].startswith("whole"), errors
    assert published.sent_bytes(GGUF) == len(WEIGHTS), "the two fetched more than one download's bytes"
    assert heard.codes == ["waiting"]
    assert f"process {first.pid}" in heard.notes[0].message
    waited = [look.done_bytes for look in heard.looks if look.stage == "waiting"]
    assert len(set(waited)) > 1, f"the second pull shows no progress while it waits: {waited}"


def test_second_pull_takes_over_when_the_first_is_killed(published: Hub) -> None:
    with pulling() as first:
        published.wait_for_bytes(3_000_000)

        class Kill(Heard):
            def note(self, note: object) -> None:
                super().note(note)  # type: ignore[arg-type]
                first.kill()

        heard = Kill()
        assert whole(pull(listener=heard).model, WEIGHTS)
    assert heard.codes[:2] == ["waiting", "resumed"]
    assert published.bytes_sent_twice(GGUF) <= LOST_AT_MOST


@pytest.mark.parametrize("lost", ["data", "counts", "both differ"])
def test_unfinished_files_that_do_not_fit_together_start_anew(published: Hub, cache: Path, lost: str) -> None:
    with pulling() as process:
        published.wait_for_bytes(1_000_000)
        process.kill()
        process.wait()
    blob = next(cache.glob("*/blobs/*.mscli.incomplete")).name.removesuffix(".mscli.incomplete")
    data, counts = partial_paths(next(cache.glob("*/blobs")) / blob)
    if lost == "data":
        data.unlink()
    elif lost == "counts":
        os.truncate(counts, 11)
    else:
        os.truncate(data, 1000)
    published.rate = None
    assert whole(pull().model, WEIGHTS)
    assert not list(cache.glob("*/blobs/*.mscli.*")), "the unfinished files of a finished pull lie about"
