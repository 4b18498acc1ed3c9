"""When the driver was last installed or upgraded, by the package managers' own logs."""

from __future__ import annotations

import re
from pathlib import Path

_LOGS = ("var/log/dpkg.log", "var/log/dnf.rpm.log", "var/log/pacman.log", "var/log/zypp/history")
# dpkg: "2026-11-20 06:12:11 upgrade libnvidia-compute-570:amd64 570.124.04 570.124.06"; the others name the package in
# the same line, too.
_UPGRADE = re.compile(r"\b(?:upgraded?|installed?|Upgraded?|Installed?)\b.*nvidia|\|install\|.*nvidia", re.IGNORECASE)
_NOISE = re.compile(r" status | configure | trigproc ")
_READ_BYTES = 2**20


def last_upgrades(root: Path, most: int = 3) -> tuple[str, ...]:
    """The last lines in which NVIDIA's packages were installed or upgraded, oldest first; none where no log tells."""
    for name in _LOGS:
        found = [line for line in _tail(root / name) if _UPGRADE.search(line) and not _NOISE.search(line)]
        if found:
            return tuple(found[-most:])
    return ()


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _READ_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
