"""Checks of the host: RAM, shared memory, limits, CPU, Python, WSL, and the kernel's log, read by other areas too."""

from __future__ import annotations

import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from mscli.doctor.checks.check import Check, CheckContext, Finding, fail, ok, skipped, tail, warn
from mscli.frozen import frozen
from mscli.inventory.host import read_limits, text_of
from mscli.planning.plan import gib

GIB = 2**30
# mscli, an engine's Python and its libraries, before any weight is in memory.
_LEAST_RAM = 4 * GIB
# vLLM raises its own soft limit as far as the hard one lets it (vllm-project/vllm#11530), so the hard one counts. Each
# user's request is a socket or more; 1024, the usual soft limit, was what a loaded server ran out of.
_FILES_WANTED, _FILES_LEAST = 16384, 1024
# A CUDA process reserves address space for all GPUs' memory and the host's.
_ADDRESSES_LEAST = 2**40
_KILLED = re.compile(r"(?:Out of memory|Memory cgroup out of memory): Killed process (\d+) \(([^)]*)\)")
# 21H2, the first Windows 10 that hands a GPU to WSL2 (Windows 11 begins with 22000). Source: Microsoft, "GPU
# acceleration in WSL".
_LEAST_WINDOWS = 19044
_MOUNT_SHM = "sudo mount -t tmpfs tmpfs /dev/shm"


def _ram(ctx: CheckContext) -> Iterator[Finding]:
    host = ctx.inventory.host
    seen = f"{gib(host.ram_available_bytes)} of {gib(host.ram_total_bytes)} RAM available"
    limit = read_limits(ctx.root).memory_bytes
    if limit is not None and limit <= host.ram_total_bytes:
        seen += " (container or cgroup limit)"
    elif host.surroundings == "wsl":
        seen += " (WSL's share: half of the machine unless .wslconfig sets memory=)"
    if host.ram_available_bytes < _LEAST_RAM:
        remedy = "Free memory or raise the limit: the kernel kills an engine that runs out of RAM."
        yield warn("host_ram", seen, remedy, _swap(ctx))
    else:
        yield ok(seen, _swap(ctx))


def _swap(ctx: CheckContext) -> str:
    found = re.search(r"^SwapFree:\s+(\d+) kB", text_of(ctx.root / "proc/meminfo"), re.MULTILINE)
    return f"free swap: {gib(int(found[1]) * 1024)}" if found else "free swap: unknown"


def _killed(ctx: CheckContext) -> Iterator[Finding]:
    """Out-of-memory kills: an engine that the kernel kills writes nothing itself."""
    log = kernel_log(ctx)
    lines = [line for line in log.matching(_KILLED) if line.recent]
    if log.refused:
        yield skipped(f"cannot read the kernel log ({log.refused})")
    elif lines:
        found = _KILLED.search(lines[-1].text)
        what = f"{found[2]} (PID {found[1]})" if found else "a process"
        limit = "cgroup limit" if "cgroup" in lines[-1].text else "out of RAM"
        seen = f"the kernel killed {what} {ago(lines[-1])} ({limit})"
        yield warn("host_ram", seen, None, *(line.text for line in lines[-3:]))
    else:
        yield ok(f"no out-of-memory kills in the last day ({log.source})")


def _limits(_: CheckContext) -> Iterator[Finding]:
    """The limits of this shell, which an engine that is started here inherits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = f"open files limit: {_shown(soft)}, hard limit {_shown(hard)}"
    addresses = resource.getrlimit(resource.RLIMIT_AS)[0]
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if 0 <= addresses < _ADDRESSES_LEAST:
        seen = f"address space limited to {gib(addresses)} (CUDA reserves more)"
        yield fail("ulimit", seen, "Run in the shell that starts mscli:", command="ulimit -v unlimited")
    if 0 <= hard < _FILES_LEAST:
        yield fail("ulimit", f"{files} (too low for a server under load)", None)
    elif 0 <= hard < _FILES_WANTED:
        yield warn("ulimit", f"{files} (low for many concurrent users)", None)
    else:
        yield ok(f"{files}; locked memory: {_shown(locked)}")


def _shown(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _cpu(ctx: CheckContext) -> Iterator[Finding]:
    host = ctx.inventory.host
    flags, cores = set(host.cpu_flags), f"{host.cpu_model}, {host.cpu_cores} logical CPUs available"
    if "sse2" not in flags:
        yield ok(f"{cores}, not x86 (extensions not checked)" if flags else cores)
    elif missing := [flag for flag in ("avx", "f16c", "fma", "avx2") if flag not in flags]:
        remedy = "In a virtual machine, use CPU type `host`; otherwise build llama.cpp on this machine."
        lacking = f"{cores}, without {', '.join(missing)} (prebuilt engines are slow or crash with illegal instruction)"
        yield warn("build", lacking, remedy)
    else:
        yield ok(f"{cores}, AVX2{' and AVX-512' if 'avx512f' in flags else ''}")


def _python(ctx: CheckContext) -> Iterator[Finding]:
    """Engines get an environment of their own, made by uv or by Python's venv, which Debian leaves out."""
    if uv := ctx.which("uv"):
        yield ok(f"uv for engine environments: {uv}")
        return
    asked = ctx.run("python3", "-c", "import ensurepip, venv, sys; print('.'.join(map(str, sys.version_info[:3])))")
    if asked is None:
        yield warn("python_env", "neither uv nor python3 on PATH", "Install uv, or python3 with python3-venv.")
    elif asked.status == 0:
        yield ok(f"Python {asked.last_words} with venv for engine environments")
    else:
        command = "sudo apt install python3-venv"
        yield warn(
            "python_env", "python3 cannot create virtual environments", "Install venv or uv:", asked.last_words,
            command=command,
        )  # fmt: skip


def _wsl(ctx: CheckContext) -> Iterator[Finding]:
    host = ctx.inventory.host
    if "microsoft" not in host.kernel.lower():
        yield ok("not under WSL")
        return
    if "wsl2" not in host.kernel.lower() and host.kernel.startswith("4.4."):
        yield fail("wsl", "WSL 1 has no GPU support", "Run in Windows: wsl --set-version DISTRIBUTION 2")
        return
    told = ctx.run("cmd.exe", "/c", "ver", timeout_s=2.0)
    found = re.search(r"10\.0\.(\d+)", told.out) if told else None
    if found and int(found[1]) < _LEAST_WINDOWS:
        seen = f"Windows build {found[1]} has no GPU support in WSL (needs {_LEAST_WINDOWS}, 21H2)"
        yield fail("wsl", seen, "Update Windows, then run there: wsl --update && wsl --shutdown")
    elif not (ctx.root / "dev/dxg").exists():
        yield warn("wsl", "no /dev/dxg: Windows gives WSL no GPU", None)
    else:
        yield ok(f"WSL 2, kernel {host.kernel}, Windows build {found[1] if found else 'unknown'}")


def _shm(ctx: CheckContext) -> Iterator[Finding]:
    shared = shared_memory(ctx.root / "dev/shm")
    if shared is None:
        remedy = "In a container, use --ipc=host or --shm-size 16g; else mount it:"
        yield fail("shm", "no /dev/shm (engine processes share memory there)", remedy, command=_MOUNT_SHM)
        return
    figures = f"/dev/shm: {gib(shared.free)} of {gib(shared.total)} free"
    left = [f"{gib(size)} {name}" for name, size in shared.leftovers[:5]]
    if shared.free < 2**26:
        yield fail("shm", f"{figures} (full)", None, *left, command="ls -laS /dev/shm | head")
    elif shared.free < GIB:
        yield warn("shm", f"{figures} (too small for several GPUs)", None, *left)
    elif sum(size for _, size in shared.leftovers) > GIB:
        seen = f"{figures} (segments left by engines)"
        yield warn("shm", seen, "Remove segments that no process has open:", *left, command="fuser -v /dev/shm/*")
    else:
        yield ok(figures)


DAY = 86400.0
_FILES = ("var/log/kern.log", "var/log/messages")
_READ_BYTES = 4 * 2**20
_BOOT = " Linux version "
# dmesg: "[ 1843.308145] NVRM: ...", with -x or in a journal: something before it or "host kernel: " behind it.
_STAMPED = re.compile(r"^\D{0,20}?\[\s*(\d+\.\d+)\]\s*(?:\S+ kernel: )?(.*)$")
_FILED = re.compile(r"\bkernel: (?:\[\s*(\d+\.\d+)\]\s*)?(.*)$")


@frozen
class Line:
    """`age_s`: seconds ago, None where the line has no time of its own."""

    age_s: float | None
    text: str

    @property
    def recent(self) -> bool:
        """Of the last 24 hours, or of unknown age."""
        return self.age_s is None or self.age_s < DAY


@frozen
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
        ran = ctx.run(*argv)
        if ran and ran.status == 0 and ran.out.strip():
            return KernelLog(tuple(_lines(ran.out, _uptime_s(ctx.root))), argv[0])
        if ran:
            refused.append(f"{argv[0]}: {ran.last_words or 'no output'}")
    for name in _FILES:
        if text := _this_boot(ctx.root / name):
            return KernelLog(tuple(_lines(text, _uptime_s(ctx.root))), f"/{name}")
    return KernelLog((), "", "; ".join(refused) or "neither dmesg nor journalctl found")


def _this_boot(path: Path) -> str:
    """What a log file says of the kernel since its last start; empty where this user may not read it."""
    text = tail(path, _READ_BYTES)
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
        return "since boot"
    hours = line.age_s / 3600
    return (
        f"{line.age_s / 60:.0f} min ago"
        if hours < 1
        else f"{hours:.0f} h ago"
        if hours < 48
        else f"{hours / 24:.0f} days ago"
    )


# NCCL, Python's multiprocessing, PyTorch and vLLM: what a killed engine leaves behind until the machine restarts.
_SEGMENT = re.compile(r"nccl-|psm_|sem\.|torch_|vllm|VLLM|cuda\.shm")


@frozen
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


CHECKS = (
    Check("host.ram", _ram),
    Check("host.killed", _killed),
    Check("host.shm", _shm),
    Check("host.limits", _limits),
    Check("host.cpu", _cpu),
    Check("host.python", _python),
    Check("host.wsl", _wsl),
)
