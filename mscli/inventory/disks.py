"""The room on disks, and which one has it for what does not fit: rented machines have a small root, a large volume."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

from mscli.frozen import frozen
from mscli.inventory.host import text_of

# File systems that keep what is written; the rest is memory, or the kernel's.
_KEEPS = {
    *("ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "overlay"),
    *("nfs", "nfs4", "cifs", "ceph", "lustre", "virtiofs", "9p"),
}
_NOT_FOR_THIS = ("/boot/", "/dev/", "/etc/", "/proc/", "/run/", "/snap/", "/sys/", "/usr/", "/var/lib/docker/")
_ANSWER_S = 1.0


@frozen
class Disk:
    """A folder on another file system that this user may write, and the bytes that he may still write there."""

    folder: Path
    free_bytes: int


def existing(folder: Path) -> Path:
    """The folder itself, or the first one above it that is there. Raises PermissionError where that does not show."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def free_bytes(folder: Path) -> int:
    """How many bytes this user may still write to the disk of `folder`, or of the first one above it that is there.

    Raises OSError where the disk does not tell.
    """
    disk = os.statvfs(existing(folder))
    return disk.f_bavail * disk.f_frsize


def roomiest(needed_bytes: int, apart_from: Path, root: Path = Path("/")) -> Disk | None:
    """The disk with the most room, of those with `needed_bytes` and not of `apart_from`; None: there is none.

    Waits at most a second for each: a network's may not answer. `root`: the file system that holds /proc.
    """
    found = [disk for folder in _mounted(root) if (disk := _answered(folder, apart_from))]
    with_room = [disk for disk in found if disk.free_bytes >= needed_bytes]
    return max(with_room, key=lambda disk: disk.free_bytes, default=None)


def _mounted(root: Path) -> Iterator[Path]:
    for line in text_of(root / "proc/self/mountinfo").splitlines():
        fields = line.split()
        if len(fields) < 7 or "-" not in fields:
            continue
        kind, place = fields[fields.index("-") + 1], fields[4].replace("\\040", " ")
        kept = kind in _KEEPS or kind.startswith("fuse.")
        if (
            kept
            and place != "/tmp"
            and not any(place == other or place.startswith(f"{other}/") for other in _NOT_FOR_THIS)
        ):
            yield Path(place)


def _answered(folder: Path, apart_from: Path) -> Disk | None:
    seen: list[Disk] = []
    look = Thread(target=lambda: seen.extend(_look(folder, apart_from)), daemon=True)
    look.start()
    look.join(_ANSWER_S)
    return seen[0] if seen else None


def _look(folder: Path, apart_from: Path) -> Iterator[Disk]:
    try:
        mine = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        if mine and folder.stat().st_dev != apart_from.stat().st_dev:
            yield Disk(folder, free_bytes(folder))
    except OSError:
        return
