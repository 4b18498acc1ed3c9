"""What the kernel says under /proc and /sys: text files, and the processes that hold GPU memory."""

from __future__ import annotations

import re
from pathlib import Path

from mscli.inventory.inventory import Holder


def text_of(path: Path) -> str:
    """What a file says; empty if it is absent or not for this user to read, as much of /proc is."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# Docker, containerd, CRI-O and Podman all name a container's cgroup after its 64 hexadecimal digits.
_CONTAINER = re.compile(r"[0-9a-f]{64}")


def holder(pid: int, used_bytes: int | None, proc: Path) -> Holder:
    """What `proc` (usually /proc) says of process `pid`; None for what it does not.

    A process of another PID namespace (NVML counts the host's) is not to be found there, nor one that has just ended.
    """
    folder = proc / str(pid)
    status, cgroup = text_of(folder / "status"), text_of(folder / "cgroup")
    containers = _CONTAINER.findall(cgroup)
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
