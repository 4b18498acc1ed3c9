"""Where mistral.rs is and which kind: its program, told apart by its answer to `--version`, or its Python wheel."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from mscli.engines.engine import SERVERS, Installation, Offer
from mscli.engines.installed import (
    PythonEnvironment,
    environment_in,
    make_environment,
    this_environment,
    version_answer,
)
from mscli.errors import Code, MscliError
from mscli.inventory.inventory import Inventory
from mscli.paths import mistralrs_place, places
from mscli.weights.progress import Listener

NAME = "mistral.rs"
# `mistralrs serve` came with 0.7 (January 2026); `mistralrs-server` was there until 0.8.4.
PROGRAMS = ("mistralrs", "mistralrs-server")
CURRENT, OLDER, WHEEL = "program", "older program", "wheel"
# The distributions that bring the package `mistralrs`, those with GPU code first.
WHEELS = ("mistralrs-cuda", "mistralrs-mkl", "mistralrs")
VERSIONS = ">=0.9.5"
DOWNLOAD_BYTES, ROOM_BYTES = 26 * 10**6, 2 * 10**8
SERVER = SERVERS / "mistralrs_server.py"
GET_ONE = (
    "Install its program with GPU code: https://ericlbuehler.github.io/mistral.rs (or `cargo install mistralrs-cli "
    "--features cuda`). Or, for the CPU, its wheel: mscli engines install mistral.rs"
)
# What a program is, and what to do when it does not run.
IN_USE = (
    "the mistral.rs to be used",
    "Fix it, or remove it from PATH (and from MSCLI_MISTRALRS) to use another.",
)

_ANSWER = re.compile(r"^(?P<name>mistralrs(?:-server|-cli)?)\s+v?(?P<version>\d\S*)", re.MULTILINE)


def locate() -> Installation:
    """What MSCLI_MISTRALRS names, else `mistralrs` on PATH, else `mistralrs-server`, else the wheel: in mscli's own
    environment for it, or in the one that runs mscli.

    Waits at most VERSION_TIMEOUT_S for a program to tell its version. Raises ENGINE_MISSING with the way to get one,
    and when what is named or first on PATH does not run: whoever put it there wants it used.
    """
    if named := mistralrs_place():
        return _named(named)
    for name in PROGRAMS:
        if path := shutil.which(name):
            return _program(Path(path).absolute())
    for environment in _environments():
        if found := _wheel(environment):
            return found
    raise MscliError(
        Code.ENGINE_MISSING, "mistral.rs was not found: no mistralrs or mistralrs-server on PATH, no wheel", GET_ONE
    )


def offer(device: str, _inventory: Inventory) -> Offer:
    """What `install` would put here. Raises ENGINE_UNSUPPORTED for a GPU: PyPI's wheel has no code for it."""
    if device == "gpu":
        raise MscliError(Code.ENGINE_UNSUPPORTED, "the mistral.rs wheel that mscli installs has no GPU code", GET_ONE)
    what, source = f"mistral.rs {VERSIONS}", "the Python package index"
    return Offer(NAME, what, source, DOWNLOAD_BYTES, ROOM_BYTES, own_environment())


def install(listener: Listener, *, version: str | None = None) -> Installation:
    """Put the wheel (of that version) into an environment of mscli's own. PyPI's has no GPU code. Blocks for the
    download (26 MB).

    Raises MscliError(DOWNLOAD_FAILED) with the installer's last words.
    """
    wanted = f"mistralrs=={version}" if version else f"mistralrs{VERSIONS}"
    found = _wheel(make_environment(own_environment(), (wanted,), listener))
    assert found is not None
    return found


def own_environment() -> Path:
    """The Python environment in which `install` puts the wheel."""
    return places().engines / "mistralrs"


def _environments() -> Iterator[PythonEnvironment]:
    if own := environment_in(own_environment()):
        yield own
    yield this_environment()


def _wheel(environment: PythonEnvironment) -> Installation | None:
    version = next((version for name in WHEELS if (version := environment.version(name))), None)
    if version is None:
        return None
    argv = (str(environment.python), str(SERVER))
    beside = environment.versions(WHEELS)
    gpu = set(beside) != {"mistralrs"}  # the wheel of that name has no GPU code
    return Installation(NAME, argv, version, WHEEL, environment.python, beside, gpu=gpu, cpu=True, library=True)


def _named(place: Path) -> Installation:
    environment = environment_in(place) if place.is_dir() else None
    if environment and (found := _wheel(environment)):
        return found
    if place.is_dir():
        raise MscliError(
            Code.ENGINE_MISSING,
            f"MSCLI_MISTRALRS is {place}, and there is no wheel of mistral.rs in it",
            "Set it to a Python environment with the wheel or to the mistralrs program, or unset it.",
            {"path": str(place)},
        )
    return _program(place)


def _program(path: Path) -> Installation:
    """The program at `path`. Which command line it takes says the name in its answer, whatever the file is called."""
    said = version_answer(path, *IN_USE)
    told = _ANSWER.search(said)
    name = told["name"] if told else path.name
    kind = OLDER if name == "mistralrs-server" else CURRENT
    argv = (str(path),) if kind == OLDER else (str(path), "serve")
    return Installation(NAME, argv, told["version"] if told else None, kind, path, cpu=True)
