"""The kernel's log since the machine started, from wherever this user may read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.program import run
from mscli.inventory.kernel import text_of

DAY = 86400.0
_FILES = ("var/log/kern.log", "var/log/messages")
_READ_BYTES = 4 * 2**20
_BOOT = " Linux version "
# dmesg: "[ 1843.308145] NVRM: ...", with -x or in a journal: something before it or "host kernel: " behind it.
_STAMPED = re.compile(r"^\D{0,20}?\[\s*(\d+\.\d+)\]\s*(?:\S+ kernel: )?(.*)$")
_FILED = re.compile(r"\bkernel: (?:\[\s*(\d+\.\d+)\]\s*)?(.*)$")


@dataclass(frozen=True)
class Line:
    """`age_s`: seconds ago, None where the line has no time of its own."""

    age_s: float | None
    text: str

    @property
    def recent(self) -> bool:
        """Of the last 24 hours, or of unknown age."""
        return self.age_s is None or self.age_s < DAY


@dataclass(frozen=True)
class KernelLog:
    """`refused`: why no log could be read; then there are no lines, which says nothing about the machine."""

    lines: tuple[Line, ...]
    source: str
    refused: str | None = None

    def matching(self, pattern: re.Pattern[str]) -> tuple[Line, ...]:
        """The lines in which the pattern is found, oldest first."""
        return tuple(line for line in self.lines if pattern.search(line.text))


def kernel_log(ctx: CheckContext) -> KernelLog:
    """The log, read once. Waits at most 2 seconds for each program that may show it."""
    return ctx.once("kernel_log", lambda: _read(ctx))


def _read(ctx: CheckContext) -> KernelLog:
    refused = []
    for argv in (("dmesg",), ("journalctl", "-k", "-b", "-q", "--no-pager", "-o", "short-monotonic")):
        ran = run(ctx, *argv)
        if ran and ran.status == 0 and ran.out.strip():
            return KernelLog(tuple(_lines(ran.out, _uptime_s(ctx.root))), argv[0])
        if ran:
            refused.append(f"{argv[0]}: {ran.last_words or 'shows nothing'}")
    for name in _FILES:
        if text := _this_boot(ctx.root / name):
            return KernelLog(tuple(_lines(text, _uptime_s(ctx.root))), f"/{name}")
    return KernelLog((), "", "; ".join(refused) or "there is neither dmesg nor journalctl")


def _this_boot(path: Path) -> str:
    """What a log file says of the kernel since its last start; empty where this user may not read it."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _READ_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return text[max(text.rfind(_BOOT), 0) :]


def _lines(text: str, uptime_s: float | None) -> Iterator[Line]:
    for line in text.splitlines():
        found = _STAMPED.match(line) or _FILED.search(line)
        stamp, rest = found.groups() if found else (None, line.strip())
        age = None if stamp is None or uptime_s is None else max(0.0, uptime_s - float(stamp))
        yield Line(age, rest.strip())


def _uptime_s(root: Path) -> float | None:
    words = text_of(root / "proc/uptime").split()
    return float(words[0]) if words else None


def ago(line: Line) -> str:
    """How long ago, for people."""
    if line.age_s is None:
        return "since the start of the machine"
    hours = line.age_s / 3600
    return (
        f"{line.age_s / 60:.0f} min ago"
        if hours < 1
        else f"{hours:.0f} h ago"
        if hours < 48
        else f"{hours / 24:.0f} days ago"
    )
