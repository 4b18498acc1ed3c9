"""Room for a download on the file systems that will really receive it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from mscli.inventory.disks import existing, free_bytes
from mscli.paths import expanded
from mscli.weights.fault import disk_full


def check_room(cache: Path, needed_bytes: int, what: str) -> None:
    """Raises MscliError(DISK_FULL) when `needed_bytes` more do not fit into `cache`.

    Unfinished files lie in the cache itself, so no temporary folder needs room. Xet storage keeps chunks of its own
    only where HF_XET_CHUNK_CACHE_SIZE_BYTES says so, and then in its own folder.
    """
    receivers = [(cache, needed_bytes)]
    kept = os.environ.get("HF_XET_CHUNK_CACHE_SIZE_BYTES", "")
    if kept.isdigit() and needed_bytes:
        receivers.append((_xet_cache(cache), min(int(kept), needed_bytes)))
    check_rooms(receivers, what)


def check_rooms(receivers: Iterable[tuple[Path, int]], what: str) -> None:
    """Raises MscliError(DISK_FULL) when the folders' file systems have not the bytes that they are to receive."""
    for folder, needed, free in _by_file_system(receivers):
        if needed > free:
            raise disk_full(folder, needed, free, what)


def _by_file_system(receivers: Iterable[tuple[Path, int]]) -> list[tuple[Path, int, int]]:
    """Folder, bytes needed and bytes free for each file system among the receivers."""
    needed: dict[int, int] = defaultdict(int)
    folders: dict[int, Path] = {}
    for folder, size in receivers:
        there = existing(folder)
        device = there.stat().st_dev
        needed[device] += size
        folders.setdefault(device, there)
    return [(folder, needed[device], free_bytes(folder)) for device, folder in folders.items()]


def _xet_cache(cache: Path) -> Path:
    return expanded(os.environ.get("HF_XET_CACHE") or cache.parent / "xet").absolute()
