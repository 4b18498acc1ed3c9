"""The machine around the GPUs: RAM, CPU, disk, the limits of its control groups, and whether it is a container or WSL.

And the processes that hold GPU memory, as the kernel tells of them, and the disk that has the room for what does not
fit: rented machines have a small root, a large volume.

`root` stands for / in every function that reads files of the kernel. A limit binds every group below it, so the whole
path from the process's own group up to the mount's root is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from threading import Thread

from mscli.frozen import frozen
from mscli.inventory.inventory import Holder, Host


def text_of(path: Path) -> str:
    """What a file says; empty if it is absent or not for this user to read, as much of /proc is."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def holder(pid: int, used_bytes: int | None, proc: Path) -> Holder:
    """What `proc` (usually /proc) says of process `pid`; None for what it does not.

    A process of another PID namespace (NVML counts the host's) is not to be found there, nor one that has just ended.
    """
    folder = proc / str(pid)
    status, cgroup = text_of(folder / "status"), text_of(folder / "cgroup")
    # Docker, containerd, CRI-O and Podman all name a container's cgroup after its 64 hexadecimal digits.
    containers = re.findall(r"[0-9a-f]{64}", cgroup)
    command = text_of(folder / "cmdline").replace("\0", " ").strip() or _field(status, "Name")
    return Holder(pid, _user(status), command, containers[-1] if containers else None, used_bytes)


def _field(status: str, name: str) -> str | None:
    found = re.search(rf"^{name}:\s*(\S+)", status, re.MULTILINE)
    return found[1] if found else None


def _user(status: str) -> str | None:
    """The name of the process's real user, or its number where the number has no name."""
    import pwd

    uid = _field(status, "Uid")
    if uid is None:
        return None
    try:
        return pwd.getpwuid(int(uid)).pw_name
    except KeyError:
        return uid


# Where a container's engine leaves its name: marker files, the cgroup path, and the files that it mounts from outside.
_MARKERS = {
    "kubernetes": ("var/run/secrets/kubernetes.io", "run/secrets/kubernetes.io"),
    "podman": ("run/.containerenv",),
    "docker": (".dockerenv",),
}
_PATHS = {
    "kubernetes": re.compile(r"kubepods|/kubelet/pods/"),
    "podman": re.compile(r"libpod|/containers/storage/|/overlay-containers/"),
    "docker": re.compile(r"/docker[/-]"),
    "lxc": re.compile(r"/lxc[./]"),
}
_MOUNTED = frozenset({"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"})


def read_host(weights_dir: Path, env: Mapping[str, str], root: Path) -> Host:
    """This machine as seen from this process; `weights_dir` need not exist yet."""
    limits, kernel = read_limits(root), text_of(root / "proc/sys/kernel/osrelease").strip() or os.uname().release
    total, available = ram(text_of(root / "proc/meminfo"), limits)
    cpuinfo, kind = text_of(root / "proc/cpuinfo"), container(root, env)
    return Host(
        surroundings="container" if kind else "wsl" if "microsoft" in kernel.lower() else "bare",
        container=kind,
        kernel=kernel,
        ram_total_bytes=total,
        ram_available_bytes=available,
        cpu_model=cpu_model(cpuinfo),
        cpu_flags=cpu_flags(cpuinfo),
        cpu_cores=cores(len(os.sched_getaffinity(0)), limits.cpus),
        disk_path=weights_dir,
        disk_free_bytes=disk_free(weights_dir),
    )


def ram(meminfo: str, limits: Limits) -> tuple[int, int]:
    """Bytes of RAM in all and still to be had, by the text of /proc/meminfo and the control groups' limits."""
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.MULTILINE)}
    total, available = kib.get("MemTotal", 0) * 1024, kib.get("MemAvailable", kib.get("MemFree", 0)) * 1024
    if limits.memory_bytes is not None:
        total = min(total, limits.memory_bytes)
    if limits.memory_free_bytes is not None:
        available = min(available, limits.memory_free_bytes)
    return total, min(available, total)


def cpu_model(cpuinfo: str) -> str:
    """The CPU's name by the text of /proc/cpuinfo, which has none on most ARM machines: then the architecture."""
    found = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else os.uname().machine


def cpu_flags(cpuinfo: str) -> tuple[str, ...]:
    """The first CPU's instruction set extensions: "flags" on x86, "Features" on ARM."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return tuple(found[1].split()) if found else ()


def cores(allowed: int, quota: float | None) -> int:
    """Logical CPUs that can be busy at once: `allowed` by the scheduler, and no more than the whole CPUs of a quota."""
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def disk_free(folder: Path) -> int | None:
    """Bytes that this user may still write at `folder`, or where it would be made; None if that cannot be told."""
    for place in (folder.absolute(), *folder.absolute().parents):
        try:
            found = os.statvfs(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
        return found.f_bavail * found.f_frsize
    return None


def container(root: Path, env: Mapping[str, str]) -> str | None:
    """The kind of container around this process: docker, podman, kubernetes, lxc or unknown; None outside one."""
    if "KUBERNETES_SERVICE_HOST" in env:
        return "kubernetes"
    for kind, markers in _MARKERS.items():
        if any((root / marker).exists() for marker in markers):
            return kind
    paths = text_of(root / "proc/self/cgroup") + _mounted_from(root)
    for kind, pattern in _PATHS.items():
        if pattern.search(paths):
            return kind
    init = re.search(r"(?:^|\0)container=([^\0]+)", text_of(root / "proc/1/environ"))
    told = init[1] if init else text_of(root / "run/systemd/container").strip() or env.get("container")
    return told if told in _PATHS or not told else "unknown"


def _mounted_from(root: Path) -> str:
    """Where the host keeps the files that container engines mount over /etc/hosts and the like, a line each."""
    mounts = (line.split() for line in text_of(root / "proc/self/mountinfo").splitlines())
    return "".join(f"{fields[3]}\n" for fields in mounts if len(fields) > 4 and fields[4] in _MOUNTED)


@frozen
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
