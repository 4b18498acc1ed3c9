"""Disks that are too small, become full, or cannot be written: said before the first byte where it can be known."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub import Hub
from support.small_disk import small_disk
from support.weights.pulls import GGUF, REPOSITORY, Heard, content, pull, whole

from mscli.errors import Code, MscliError
from mscli.weights.fault import Timeouts
from mscli.weights.progress import Progress

WEIGHTS = content(6_000_000)
MIB = 1 << 20


@pytest.fixture(name="small_disk")
def cache_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 8 MiB that holds the hub cache."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        monkeypatch.setenv("HF_HUB_CACHE", str(disk / "hub"))
        yield disk


def fill(disk: Path, leave: int) -> Path:
    """A file that leaves `leave` bytes free."""
    filler = disk / "filler"
    status = os.statvfs(disk)
    filler.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - leave)))
    return filler


def test_too_small_a_disk_is_said_before_the_first_byte(hub: Hub, small_disk: Path) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    fill(small_disk, 4 * MIB)
    with pytest.raises(MscliError) as raised:
        pull()
    error = raised.value
    assert (error.code, error.details["cause"]) == (Code.DISK_FULL, "disk_full")
    assert error.details["needed_bytes"] == len(WEIGHTS)
    assert str(small_disk) in str(error.details["folder"])
    assert hub.sent_bytes(GGUF) == 0, "bytes were fetched for which there is no room"


def test_only_what_is_missing_needs_room(hub: Hub, small_disk: Path) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    hub.fault("cut", GGUF, at=5_500_000, times=None)
    with pytest.raises(MscliError, match="cut"):
        pull(timeouts=Timeouts(connect_s=2, stall_s=1, retry_s=0.5))
    hub.faults.clear()
    fill(small_disk, 1 * MIB)
    assert whole(pull().model, WEIGHTS)


def test_disk_that_becomes_full_keeps_what_arrived(hub: Hub, small_disk: Path) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    hub.rate = 2_000_000

    class Fill(Heard):
        def progress(self, progress: Progress) -> None:
            if progress.done_bytes and not (small_disk / "filler").exists():
                fill(small_disk, 512 * 1024)

    with pytest.raises(MscliError) as raised:
        pull(listener=Fill())
    assert (raised.value.code, raised.value.details["cause"]) == (Code.DISK_FULL, "disk_full")
    (small_disk / "filler").unlink()
    hub.rate = None
    heard = Heard()
    assert whole(pull(listener=heard).model, WEIGHTS)
    assert heard.codes == ["resumed"]
    assert hub.bytes_sent_twice(GGUF) < 4 * MIB


def test_xet_chunk_cache_counts_where_it_is_switched_on(
    hub: Hub, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_XET_CACHE", str(small_disk / "xet"))
    monkeypatch.setenv("HF_XET_CHUNK_CACHE_SIZE_BYTES", str(10**10))
    fill(small_disk, 1 * MIB)
    with pytest.raises(MscliError) as raised:
        pull()
    assert raised.value.details["folder"] == str(small_disk)


def test_cache_that_is_no_folder_is_named(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(MscliError) as raised:
        pull()
    assert raised.value.code == Code.FILE
    assert str(tmp_path / "file") in raised.value.message


def test_read_only_cache_serves_what_it_holds(hub: Hub, small_disk: Path) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    pull()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert whole(pull().model, WEIGHTS)
