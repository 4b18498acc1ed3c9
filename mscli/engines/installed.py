"""Copies of an engine on this machine: a program asked for its version, and a Python environment that holds an engine's
library, read without starting it, and made.

Importing torch to ask for its version would take seconds of every plan; the metadata's folder names tell as much.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mscli.errors import Code, MscliError
from mscli.weights.progress import Listener, Note

_PATTERNS = ("lib/python3*/site-packages", "lib64/python3*/site-packages", "lib/python3*/dist-packages")
_LAST_LINES = 3
VERSION_TIMEOUT_S = 10.0


@dataclass(frozen=True)
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


def version_answer(program: Path, what: str, hint: str) -> str:
    """All that `program --version` says. Waits at most VERSION_TIMEOUT_S.

    Raises ENGINE_MISSING with `hint` where it does not run; `what`: what it is to mscli, for the message.
    """

    def broken(seen: str) -> MscliError:
        message = f"{program} is {what}, but it does not run: {seen}"
        return MscliError(Code.ENGINE_MISSING, message, hint, {"path": str(program)})

    try:
        answer = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise broken(f"it did not tell its version within {VERSION_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise broken(str(error)) from None
    said = (answer.stdout + answer.stderr).strip()
    if answer.returncode != 0:
        raise broken(f"exit status {answer.returncode}: {said.splitlines()[-1] if said else 'it said nothing'}")
    return said


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


def make_environment(folder: Path, requirements: Sequence[str], listener: Listener) -> PythonEnvironment:
    """Install `requirements` into an environment in `folder`, made where there is none; with uv if it is there, else
    with pip. Blocks for the download, which may be gigabytes. Until all is in place the environment counts as absent,
    also after a cut; the next call goes on with it.

    Raises MscliError(DOWNLOAD_FAILED) with the installer's last words; what it wrote lies in `folder`.log.
    """
    uv = shutil.which("uv")
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    made = [uv, "venv", str(folder), "--allow-existing"] if uv else [sys.executable, "-m", "venv", str(folder)]
    filled = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    log = folder.with_name(f"{folder.name}.log")
    log.unlink(missing_ok=True)
    fresh = not python.exists() or not finished(folder)
    _mark(folder).touch()
    if fresh:
        _do(made, log)
    listener.note(Note("installing", f"installing {', '.join(requirements)}; see {log}"))
    _do([*filled, *requirements], log)
    _mark(folder).unlink()
    environment = environment_in(folder)
    assert environment is not None
    return environment


def _do(argv: Sequence[str], log: Path) -> None:
    with log.open("ab") as output:
        status = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False).returncode
    if status == 0:
        return
    last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-_LAST_LINES:]
    raise MscliError(
        Code.DOWNLOAD_FAILED,
        f"{argv[0]} ended with status {status}: {' '.join(last)}",
        f"Its whole output: {log}. Behind a proxy set HTTPS_PROXY; what is missing on the disk shows `df -h`.",
        {"log": str(log)},
    )
