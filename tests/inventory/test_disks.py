"""The disk that has room, by the kernel's own list of mounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.small_disk import small_disk

from mscli.inventory.host import roomiest
from mscli.weights.fault import disk_full

MIB = 1 << 20


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    with small_disk(tmp_path / "my volume", "8m") as folder:
        yield folder


def listed(tmp_path: Path, *mounts: tuple[Path, str]) -> Path:
    """A root whose kernel lists these places, with the kind of file system that each is said to be."""
    proc = tmp_path / "root" / "proc" / "self"
    proc.mkdir(parents=True)
    rows = [f"30 27 8:1 / {str(place).replace(' ', chr(92) + '040')} rw - {kind} /dev/x rw" for place, kind in mounts]
    (proc / "mountinfo").write_text("\n".join(["27 1 254:0 / / rw - ext4 /dev/vda rw", "unreadable", *rows]) + "\n")
    return tmp_path / "root"


def test_a_volume_with_room_is_found(tmp_path: Path, volume: Path) -> None:
    found = roomiest(MIB, tmp_path, listed(tmp_path, (tmp_path / "gone", "xfs"), (volume, "ext4")))
    assert found is not None
    assert found.folder == volume
    assert MIB < found.free_bytes <= 8 * MIB


@pytest.mark.parametrize(("kind", "needed_bytes"), [("ext4", 9 * MIB), ("tmpfs", MIB)], ids=["too small", "memory"])
def test_what_is_too_small_or_does_not_keep_is_none(tmp_path: Path, volume: Path, kind: str, needed_bytes: int) -> None:
    assert roomiest(needed_bytes, tmp_path, listed(tmp_path, (volume, kind))) is None


def test_the_same_disk_under_another_name_is_none(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert roomiest(MIB, tmp_path, listed(tmp_path, (tmp_path / "other", "ext4"))) is None


def test_a_full_disk_names_the_one_with_room(tmp_path: Path, volume: Path) -> None:
    fault = disk_full(tmp_path, MIB, 0, "the engine", listed(tmp_path, (volume, "ext4")))
    assert fault.hint.splitlines()[1] == f"export MSCLI_HOME='{volume}/mscli' HF_HOME='{volume}/huggingface'"
    assert fault.details["elsewhere"] == str(volume)
