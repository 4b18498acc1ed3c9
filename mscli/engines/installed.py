"""Copies of an engine on this machine: a program asked for its version, and a Python environment that holds an engine's
library, read without starting it, and made.

Importing torch to ask for its version would take seconds of every plan; the metadata's folder names tell as much.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess

from mscli.engines.engine import Installation
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.inventory.host import free_bytes
from mscli.paths import on_path
from mscli.weights.fault import OWN_FOLDER_FULL
from mscli.weights.progress import Listener, Note

_PATTERNS = ("lib/python3*/site-packages", "lib64/python3*/site-packages", "lib/python3*/dist-packages")
_LAST_LINES = 3
# Less than any installer needs for one file: it has ended for want of it.
_NO_ROOM_BYTES = 1 << 20
_FULL = re.compile(r"no space left on device|disk quota exceeded|\(os error (?:28|122)\)", re.IGNORECASE)
VERSION_TIMEOUT_S = 10.0


@frozen
class PythonEnvironment:
    """`python`: its interpreter. `packages`: the folders in which that looks for packages."""

    python: Path
    packages: tuple[Path, ...]

    def version(self, distribution: str) -> str | None:
        """The installed version of a distribution, or None."""
        name = re.sub(r"[-_.]+", "_", distribution)
        for folder in self.packages:
            for metadata in folder.glob(f"{name}-*.dist-info"):
                return metadata.name.removeprefix(f"{name}-").removesuffix(".dist-info")
        return None

    def versions(self, distributions: Sequence[str]) -> dict[str, str]:
        """The versions of those that are installed, by name."""
        return {name: version for name in distributions if (version := self.version(name))}


def ask(argv: Sequence[str | Path], timeout_s: float, env: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """What a program answers, with `env` in place of this process's. Raises OSError where it does not run, and
    subprocess.TimeoutExpired."""
    return subprocess.run(
        argv, env=env, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
    )


def version_answer(program: Path, what: str, hint: str) -> str:
    """All that `program --version` says. Waits at most VERSION_TIMEOUT_S.

    Raises ENGINE_MISSING with `hint` where it does not run; `what`: what it is to mscli, for the message.
    """

    def broken(seen: str) -> MscliError:
        message = f"{program} is {what}, but it does not run: {seen}"
        return MscliError(Code.ENGINE_MISSING, message, hint, {"path": str(program)})

    try:
        answer = ask([program, "--version"], VERSION_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise broken(f"it did not report its version within {VERSION_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise broken(str(error)) from None
    said = (answer.stdout + answer.stderr).strip()
    if answer.returncode != 0:
        raise broken(f"exit status {answer.returncode}: {said.splitlines()[-1] if said else 'no output'}")
    return said


def first_for_gpu(copies: Iterator[Installation], none: Callable[[list[Path]], MscliError]) -> Installation:
    """The first of the copies, in the order of preference, that may have GPU code. Raises what the copies raise where
    there is none, and `none` of those that were passed over where all are built for the CPU."""
    passed: list[Path] = []
    try:
        for found in copies:
            if found.gpu is not False:
                return found
            passed.append(found.path)
    except MscliError:
        if not passed:
            raise
    raise none(passed)


@frozen
class GpuCode:
    """What a program can run on NVIDIA GPUs with. `found` None: it cannot be told from its files. `cuda`: the major
    version of the CUDA libraries that it uses, None where it uses none."""

    found: bool | None
    cuda: int | None = None
    vulkan: bool = False


_GPU_LIBRARY = re.compile(r"lib(ggml-)?(cuda|cudart|cublas|cublasLt|vulkan)\b")
_OTHER_GPU = re.compile(r"libggml-(hip|sycl|opencl|musa|cann|rpc)\b|libsycl|libamdhip|libOpenCL")
_MOST_ENTRIES = 1 << 16
# Where ggml's backends lie beside what loads them, Debian's in the last.
_BACKENDS = ("libggml-*.so*", "ggml/libggml-*.so*", "ggml/*/libggml-*.so*")


def gpu_code(program: Path, *folders: Path, inside: bool = True) -> GpuCode:
    """The GPU code of an ELF program or library, by the shared libraries that it and those near it need.

    ggml loads its backends (libggml-cuda.so) at run time, from its own folder or from `folders`. `inside`: a program
    that needs none is searched for statically linked code, which reads all of it. Nothing is executed.
    """
    program = program.resolve()
    waiting, seen, whole = [program], dict[str, Path](), True
    needed: set[str] = set()
    while waiting:
        path = waiting.pop()
        told = _needed(path)
        if told is None:
            return GpuCode(None)
        libraries, places = told
        needed.update(libraries)
        for name in libraries:
            if name in seen or not name.startswith(("libggml", "libllama", "libmtmd")):
                continue
            found = next((each / name for each in (*places, path.parent, *folders) if (each / name).is_file()), None)
            whole &= found is not None
            if found is not None:
                seen[name] = found
                waiting.append(found)
    near = {program.parent, *folders, *(path.resolve().parent for path in seen.values())}
    for backend in (path for folder in near for pattern in _BACKENDS for path in folder.glob(pattern)):
        needed.add(backend.name)
        needed.update((_needed(backend) or ((), ()))[0] if _GPU_LIBRARY.search(backend.name) else ())
    if inside and not seen and whole and not any(map(_GPU_LIBRARY.search, needed)) and _has_inside(program):
        return GpuCode(True)
    return _gpu_code_of(needed, whole)


def _has_inside(program: Path) -> bool:
    """Whether ggml's CUDA code is in the program itself: linked statically, it loads the driver's library later."""
    try:
        with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(b"ggml_cuda_init") >= 0
    except (OSError, ValueError):
        return False


def _gpu_code_of(names: set[str], whole: bool) -> GpuCode:
    majors = [int(match[1]) for name in names if (match := re.search(r"lib(?:cudart|cublas)\b[-\w]*\.so\.(\d+)", name))]
    vulkan = any(name.startswith(("libggml-vulkan", "libvulkan")) for name in names)
    if any(_GPU_LIBRARY.search(name) for name in names):
        return GpuCode(True, max(majors, default=None), vulkan)
    return GpuCode(False if whole and not any(map(_OTHER_GPU.search, names)) else None)


def _needed(path: Path) -> tuple[tuple[str, ...], tuple[Path, ...]] | None:
    """The libraries that a 64-bit ELF file names, and the folders in which it looks for them first; None for another
    kind of file. Layout: the ELF-64 object file format, sections on program headers and the dynamic section."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
            if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
                return None
            (start,), (size, count) = struct.unpack_from("<Q", head, 32), struct.unpack_from("<HH", head, 54)
            file.seek(start)
            table = file.read(size * count)
            rows = [struct.unpack_from("<IIQQQQ", table, place * size) for place in range(count)]
            entries: list[tuple[int, int]] = []
            for row in rows:
                if row[0] == 2:  # PT_DYNAMIC
                    file.seek(row[2])
                    entries += struct.iter_unpack("<qQ", file.read(min(row[5], _MOST_ENTRIES) // 16 * 16))
            values = dict(entries)
            if 5 not in values:  # DT_STRTAB: a static program
                return (), ()
            at = next(row[2] + values[5] - row[3] for row in rows if row[0] == 1 and 0 <= values[5] - row[3] < row[5])
            file.seek(at)
            text = file.read(min(values[10], 1 << 24))  # DT_STRSZ
    except (OSError, ValueError, OverflowError, struct.error, StopIteration, KeyError):
        return None

    def strings(tag: int) -> Iterator[str]:
        for kind, value in entries:
            if kind == tag:
                yield text[value : text.find(b"\0", value)].decode(errors="replace")

    places = [each for tag in (15, 29) for entry in strings(tag) for each in entry.split(":")]  # DT_RPATH, DT_RUNPATH
    found = (Path(re.sub(r"\$\{?ORIGIN\}?", str(path.parent), each)) for each in places if each)
    return tuple(strings(1)), tuple(found)  # DT_NEEDED


def glibc() -> tuple[int, ...] | None:
    """The version of the system's glibc; None for another C library."""
    try:
        told = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return None
    numbers = re.findall(r"\d+", told.removeprefix("glibc ")) if told and told.startswith("glibc ") else []
    return tuple(int(part) for part in numbers[:2]) or None


def environment_in(folder: Path) -> PythonEnvironment | None:
    """The environment whose root is `folder`; None where there is none, or an installation into it was cut off."""
    python = folder / "bin" / "python"
    if not python.exists() or not finished(folder):
        return None
    return PythonEnvironment(python, package_folders(folder))


def finished(folder: Path) -> bool:
    """False for an environment that `make_environment` began to fill and did not end: it is used by nobody."""
    return not _mark(folder).exists()


def _mark(folder: Path) -> Path:
    """The file that lies beside an environment for as long as it is being filled."""
    return folder.with_name(f"{folder.name}.unfinished")


def package_folders(prefix: Path) -> tuple[Path, ...]:
    """The folders below the root of an environment in which its Python looks for packages, where they are usual."""
    return tuple(path for pattern in _PATTERNS for path in sorted(prefix.glob(pattern)))


def environment_of(script: Path) -> PythonEnvironment | None:
    """The environment that a command such as `transformers` belongs to, by the interpreter in its first line."""
    try:
        with script.open("rb") as file:
            head = file.readline(512).decode(errors="replace")
    except OSError:
        return None
    words = head.removeprefix("#!").split() if head.startswith("#!") else []
    python = Path(words[0]) if words and "python" in words[0] else script.parent / "python"
    return environment_in(python.parent.parent) if python.exists() else None


def this_environment() -> PythonEnvironment:
    """The environment that runs mscli."""
    folders = (Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages")))
    return PythonEnvironment(Path(sys.executable), tuple(folders))


def make_environment(
    folder: Path, requirements: Sequence[str], listener: Listener, pythons: str | None = None
) -> PythonEnvironment:
    """Install `requirements` into an environment in `folder`, made where there is none; with uv if it is there, else
    with pip. Blocks for the download, which may be gigabytes. Until all is in place the environment counts as absent,
    also after a cut; the next call goes on with it.

    `pythons`: which versions of Python will do (">=3.10,<3.14"), for an engine that does not run on every one. Then uv
    finds one on this machine, or fetches it; without uv on PATH it is installed beside `folder` first.
    Raises MscliError(DOWNLOAD_FAILED), or DISK_FULL, with the installer's last words; what it wrote is in `folder`.log.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    uv = on_path("uv") or (_own_uv(folder.parent, listener) if pythons else None)
    python = folder / "bin" / "python"
    made = [uv, "venv", str(folder), "--allow-existing"] if uv else [sys.executable, "-m", "venv", str(folder)]
    if pythons:
        made += ["--python", pythons]
    filled = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    log = folder.with_name(f"{folder.name}.log")
    log.unlink(missing_ok=True)
    fresh = not python.exists() or not finished(folder)
    _mark(folder).touch()
    if fresh:
        run_logged(made, log)
    listener.note(Note("installing", f"installing {', '.join(requirements)}; see {log}"))
    run_logged([*filled, *requirements], log)
    _mark(folder).unlink()
    environment = environment_in(folder)
    assert environment is not None
    return environment


def _own_uv(engines: Path, listener: Listener) -> str:
    """mscli's own uv, installed from the Python package index where it is not there yet (about 25 MB)."""
    folder = engines / "uv"
    if environment_in(folder) is None or not (folder / "bin" / "uv").exists():
        make_environment(folder, ("uv",), listener)
    return str(folder / "bin" / "uv")


def run_logged(argv: Sequence[str], log: Path) -> None:
    """Run a program of an installation, its output appended to `log`. Raises DOWNLOAD_FAILED with its last words, and
    where a host could not be reached with that host and the setting that helps; DISK_FULL where the disk has filled."""
    with log.open("ab") as output:
        begin = output.tell()
        status = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False).returncode
    if status != 0:
        raise _failed(argv[0], status, log.read_bytes()[begin:].decode(errors="replace"), log)


def _failed(program: str, status: int, said: str, log: Path) -> MscliError:
    """What became of a program of an installation, by what it said."""
    from mscli.engines.packages import unreached

    last = [line.strip() for line in said.splitlines() if line.strip()][-_LAST_LINES:]
    message = ": ".join(filter(None, (f"{program} ended with status {status}", " ".join(last))))
    details = {"log": str(log)}
    if _FULL.search(said) or free_bytes(log.parent) < _NO_ROOM_BYTES:  # the log may have had no room for its words
        return MscliError(
            Code.DISK_FULL, message, f"{OWN_FOLDER_FULL}\nFull output: {log}", {**details, "cause": "disk_full"}
        )
    hint = "Behind a proxy set HTTPS_PROXY; `df -h` shows the free disk space."
    if found := unreached(said):
        host, hint = found
        message = f"{Path(program).name} cannot fetch from {host} ({last[-1]})"
        details |= {"cause": "network_proxy", "host": host}
    return MscliError(Code.DOWNLOAD_FAILED, message, f"{hint}\nFull output: {log}", dict(details))
