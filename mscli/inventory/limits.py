"""What control groups allow this process: memory and CPUs, by version 1 and version 2 of the kernel's interface.

A limit binds every group below it, so the whole path from the process's own group up to the mount's root is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mscli.inventory.kernel import text_of


@dataclass(frozen=True)
class Limits:
    """Bytes of memory allowed in all and still to be had, and CPUs. None: no limit."""

    memory_bytes: int | None
    memory_free_bytes: int | None
    cpus: float | None


def read_limits(root: Path) -> Limits:
    """The tightest limits in force on this process. `root`: the file system that holds /proc and /sys."""
    memory = [found for group in _groups(root, "memory") if (found := _memory(group))]
    cpus = [quota for group in _groups(root, "cpu") if (quota := _cpus(group))]
    return Limits(
        memory_bytes=min((limit for limit, _ in memory), default=None),
        memory_free_bytes=min((free for _, free in memory), default=None),
        cpus=min(cpus, default=None),
    )


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's groups under a controller, from its own up to the root of the mount.

    Inside a container the path often speaks of the host's tree, which is not mounted there: then the mount's root is
    the container's own group, and the only one to be seen.
    """
    for line in text_of(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup"
        if number != "0":
            mount = mount / controllers if (mount / controllers).is_dir() else mount / controller
        inner = PurePosixPath(path.lstrip("/"))
        for group in (inner, *inner.parents):
            if ".." not in group.parts and (mount / group).is_dir():
                yield mount / group


def _memory(group: Path) -> tuple[int, int] | None:
    """Bytes that a group allows, and those still free in it, with the page cache that the kernel would give back."""
    for limit, usage, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        allowed = _number(group / limit)
        if allowed is not None:
            used = (_number(group / usage) or 0) - _stat(group / "memory.stat", cache)
            return allowed, max(0, allowed - max(0, used))
    return None


def _cpus(group: Path) -> float | None:
    quota, _, period = text_of(group / "cpu.max").partition(" ")
    if not quota:
        quota, period = text_of(group / "cpu.cfs_quota_us"), text_of(group / "cpu.cfs_period_us")
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such files
        return None
    return cpus if cpus > 0 else None


def _stat(path: Path, key: str) -> int:
    for line in text_of(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    """The number in a file; None for "max" and for a file that is not there."""
    text = text_of(path).strip()
    return int(text) if text.isdecimal() else None
