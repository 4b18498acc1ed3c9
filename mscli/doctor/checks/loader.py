"""Why a shared library does not load, as the loader itself says it: what uses the library mostly says "not found"."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from mscli.doctor.checks.check import CheckContext, Finding, fail, shell
from mscli.frozen import frozen

MISSING, UNLISTED, LINK, DEPENDENCY, DAMAGED = "missing", "unlisted", "link", "dependency", "damaged"
ARCHITECTURE, SYMBOL, GLIBC, PERMISSION, OTHER = "architecture", "symbol", "glibc", "permission", "other"

_PROGRAM = "import ctypes, sys\ntry:\n    ctypes.CDLL(sys.argv[1])\nexcept OSError as fault:\n    sys.exit(f'!{fault}')"
# Where drivers put their libraries, beside what the loader's cache and LD_LIBRARY_PATH name.
_FOLDERS = (
    *("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib", "lib64", "lib"),
    *("usr/local/nvidia/lib64", "usr/lib/wsl/lib", "usr/lib/nvidia", "usr/local/cuda/lib64"),
)
_MACHINES = {3: "32-bit x86", 40: "32-bit ARM", 62: "x86-64", 183: "aarch64", 243: "RISC-V"}
# What glibc's and musl's loaders say, and what it means. The first that matches counts.
_SAID: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"version [`'\"]GLIBC_[\d.]+['\"] not found", GLIBC),
        (r"version [`'\"]\w+[\d.]*['\"] not found", SYMBOL),
        (r"undefined symbol: |symbol \S{1,200} version |: symbol not found", SYMBOL),
        (r"wrong ELF class|Exec format error", ARCHITECTURE),
        (r"file too short|invalid ELF header|ELF load command|not a dynamic", DAMAGED),
        (r"Permission denied|Operation not permitted", PERMISSION),
    )
)
_ABSENT = re.compile(
    r"(?:loading shared library )?(?<![^\s:])([^\s:]+): (?:cannot open shared object file: )?No such file"
)
_CACHED = re.compile(r"^[ \t]*(\S+) \([^)]*\) => (\S.*)$", re.MULTILINE)


@frozen
class LoadFault:
    """Why a library does not load. `kind`: one of the above. `words`: the loader's, or what its file shows. `path`: the
    file that is in the way, where one is known."""

    kind: str
    words: str
    path: Path | None = None


def load_fault(ctx: CheckContext, library: str) -> LoadFault | None:
    """Why a library does not load; None where it does. Asks the loader, in a child: a library may hang or crash."""
    ran = ctx.run(sys.executable, "-I", "-S", "-c", _PROGRAM, library)
    if ran is None or ran.status == 0:
        return None
    if ran.status is None or ran.status < 0:
        return LoadFault(OTHER, "the loader hangs" if ran.status is None else f"crashed (signal {-ran.status})")
    return explained(ctx, library, ran.err.rpartition("!")[2].strip())


def explained(ctx: CheckContext, library: str, words: str) -> LoadFault:
    """What the loader's words mean. "No such file" is also what it says of a file that it passed over."""
    kind = next((kind for pattern, kind in _SAID if pattern.search(words)), OTHER)
    absent = _ABSENT.search(words)
    if kind == OTHER and absent and absent[1] != library:
        return LoadFault(DEPENDENCY, words)
    if (kind == OTHER and absent) or (kind == DAMAGED and _is_empty(words)):
        return next(_passed_over(ctx, library), LoadFault(MISSING, words))
    return LoadFault(kind, words)


def _is_empty(words: str) -> bool:
    """True where the file that the loader names is empty, as a container's mount leaves it behind in an image."""
    path = Path(words.partition(":")[0])
    return path.is_absolute() and path.is_file() and path.stat().st_size == 0


def _passed_over(ctx: CheckContext, library: str) -> Iterator[LoadFault]:
    """What is wrong with each file of the library's name that the loader did not take."""
    for path in _candidates(ctx, library):
        if path.is_symlink() and not path.exists():
            yield LoadFault(LINK, f"{path} is a broken link to {os.readlink(path)}", path)
        elif (head := _head(path)) is None:
            yield LoadFault(PERMISSION, f"no permission to read {path}", path)
        elif head[:4] == b"\x7fELF" and _machine(head) != _machine(_head(Path(sys.executable)) or b""):
            yield LoadFault(ARCHITECTURE, f"{path} is for {_machine(head)}, this is {platform.machine()}", path)
        elif head[:4] == b"\x7fELF":
            yield LoadFault(UNLISTED, f"{path.parent} is not in the loader's search path", path)


def _candidates(ctx: CheckContext, library: str) -> Iterator[Path]:
    """The files of this name where the loader looks or might have looked, as far as they are not empty."""
    named = [Path(folder) for folder in ctx.env.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    listed = ctx.run("ldconfig", "-p")
    cached = [Path(path) for name, path in _CACHED.findall(listed.out if listed else "") if name == library]
    for path in dict.fromkeys(
        [*(each / library for each in named), *cached, *(ctx.root / each / library for each in _FOLDERS)]
    ):
        try:
            if path.lstat().st_size:
                yield path
        except OSError:
            continue


def _head(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(20)
    except OSError:
        return None


def _machine(head: bytes) -> str:
    """What an ELF file runs on, by its header: the class in byte 4, the order of bytes in byte 5, the machine in 18."""
    number = int.from_bytes(head[18:20], "big" if head[5:6] == b"\x02" else "little")
    if head[4:5] == b"\x01" and number not in (3, 40):
        return "a 32-bit machine"
    return _MACHINES.get(number, f"machine {number}")


_ADD = "echo {folder} | sudo tee /etc/ld.so.conf.d/nvidia.conf && sudo ldconfig"
_BY_HAND = "LD_DEBUG=libs python3 -c 'import ctypes; ctypes.CDLL(\"{library}\")'"
_REMEDIES: Mapping[str, tuple[str, str, str | None]] = {
    UNLISTED: ("nvml_not_found", "Add the folder:", _ADD),
    LINK: ("nvml_not_found", "Renew the links, or reinstall the driver's libraries:", "sudo ldconfig"),
    DEPENDENCY: ("nvml_not_found", "Install the library that it names.", None),
    DAMAGED: ("nvml_not_found", "Reinstall the driver's libraries.", None),
    ARCHITECTURE: ("nvml_not_found", "Install the driver's libraries for this architecture.", None),
    SYMBOL: ("nvml_mismatch", "Its libraries differ in version: reinstall the driver and restart.", None),
    GLIBC: ("nvml_not_found", "Use a newer Linux or container image (its glibc is {glibc}), or an older driver.", None),
    PERMISSION: ("permissions", "Give this user access to it (or the mount is noexec):", "namei -l {path}"),
    OTHER: ("nvml_not_found", "Load it by hand to see more:", _BY_HAND),
}  # fmt: skip


def not_loaded(library: str, fault: LoadFault, *evidence: str) -> Finding:
    """The finding for a driver's library that is there and does not load."""
    code, remedy, command = _REMEDIES.get(fault.kind, _REMEDIES[OTHER])
    path = fault.path or _named(fault.words)
    known = {"glibc": platform.libc_ver()[1] or "unknown", "library": library}
    typed = command and command.format(folder=shell(path.parent), path=shell(path), **known)
    words = fault.words.removeprefix(f"{library}: ")
    return fail(code, f"{library} does not load: {words}", remedy.format(**known), *evidence, command=typed)


def _named(words: str) -> Path:
    """The file that the loader's words begin with."""
    found = Path(words.partition(":")[0])
    return found if found.is_absolute() else Path("/usr/lib")
