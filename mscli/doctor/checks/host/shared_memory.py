"""/dev/shm, through which an engine's processes and NCCL talk: its size, and what earlier engines left in it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

# NCCL, Python's multiprocessing, PyTorch and vLLM: what a killed engine leaves behind until the machine restarts.
_SEGMENT = re.compile(r"nccl-|psm_|sem\.|torch_|vllm|VLLM|cuda\.shm")


@dataclass(frozen=True)
class SharedMemory:
    """Bytes of the file system, and engines' segments in it with their sizes, the largest first (in use or not)."""

    total: int
    free: int
    leftovers: tuple[tuple[str, int], ...]


def shared_memory(folder: Path) -> SharedMemory | None:
    """What is there; None where there is no such folder."""
    try:
        usage = shutil.disk_usage(folder)
        sizes = [(path.name, path.lstat().st_size) for path in folder.iterdir() if _SEGMENT.match(path.name)]
    except OSError:
        return None
    return SharedMemory(usage.total, usage.free, tuple(sorted(sizes, key=lambda one: -one[1])))
