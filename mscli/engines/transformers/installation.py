"""Where Transformers is, with what the server needs beside it, and how to install it into mscli's own environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mscli.engines.engine import SERVERS, Installation, Offer
from mscli.engines.installed import (
    PythonEnvironment,
    environment_in,
    environment_of,
    make_environment,
    this_environment,
)
from mscli.errors import Code, MscliError
from mscli.inventory.inventory import Inventory
from mscli.paths import on_path, places, transformers_place
from mscli.weights.progress import Listener

NAME = "transformers"
# What the server imports, and what is there only for some plans.
NEEDED = ("transformers", "torch", "accelerate")
BESIDE = ("torch", "bitsandbytes", "torchvision")
VERSIONS = ">=5,<6"
# With CUDA: what is fetched, and what the disk must have for it.
DOWNLOAD_BYTES, ROOM_BYTES = 3 * 10**9, 10**10
REQUIREMENTS = (
    *("torch", "torchvision", "accelerate>=1.10", "bitsandbytes>=0.46"),
    *("mistral-common[image]>=1.8", "pillow", "jinja2>=3.1"),
)
ABSENT = "absent"  # what is shown of an engine that is not here yet
SERVER = SERVERS / "transformers_server.py"
GET_ONE = (
    "Install it in mscli's own environment: mscli engines install transformers. Or use an installed one: "
    "export MSCLI_TRANSFORMERS=/path/to/its/environment"
)


def locate() -> Installation:
    """The environment that MSCLI_TRANSFORMERS names, else mscli's own, else that of `transformers` on PATH, else
    the one that runs mscli. Starts nothing. Raises ENGINE_MISSING with the way to get one.
    """
    missing: tuple[str, ...] = NEEDED
    for kind, environment in _environments():
        found = environment.versions(NEEDED)
        missing = tuple(name for name in NEEDED if name not in found)
        if not missing:
            return _installation(kind, environment)
        if kind == "named":
            break
    raise MscliError(
        Code.ENGINE_MISSING, f"Transformers was not found: {' and '.join(missing)} missing", GET_ONE
    )  # fmt: skip


def offer(_device: str, _inventory: Inventory) -> Offer:
    """What `install` would put here."""
    from mscli.engines.packages import INDEX, addresses

    what = f"Transformers {VERSIONS} with PyTorch"
    return Offer(NAME, what, INDEX, DOWNLOAD_BYTES, ROOM_BYTES, own_environment(), addresses())


def install(listener: Listener, *, version: str | None = None) -> Installation:
    """Put Transformers (of that version) with what it needs into mscli's own environment. Blocks for the download, some
    3 GB with CUDA.

    Raises MscliError(DOWNLOAD_FAILED) with the installer's last words.
    """
    wanted = f"transformers=={version}" if version else f"transformers{VERSIONS}"
    return _installation("own", make_environment(own_environment(), (wanted, *REQUIREMENTS), listener))


def own_environment() -> Path:
    """The Python environment in which `install` puts Transformers."""
    return places().engines / NAME


def _environments() -> Iterator[tuple[str, PythonEnvironment]]:
    """Where to look, in order; one that the user names ends the search."""
    if named := transformers_place():
        environment = environment_in(named)
        if environment is None:
            raise MscliError(
                Code.ENGINE_MISSING,
                f"MSCLI_TRANSFORMERS is {named}, and that is not a Python environment: it has no bin/python",
                "Set it to the folder of an environment with Transformers, or unset it.",
                {"path": str(named)},
            )
        yield "named", environment
    if own := environment_in(own_environment()):
        yield "own", own
    if (found := on_path("transformers")) and (environment := environment_of(Path(found).absolute())):
        yield "program", environment
    yield "current", this_environment()


def _installation(kind: str, environment: PythonEnvironment) -> Installation:
    argv = (str(environment.python), str(SERVER))
    beside = environment.versions(BESIDE)
    gpu = "+cpu" not in beside["torch"] if "torch" in beside else None
    version = environment.version("transformers")
    return Installation(NAME, argv, version, kind, environment.python, beside, gpu=gpu, cpu=True, library=True)
