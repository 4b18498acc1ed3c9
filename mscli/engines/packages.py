"""Where an installer of Python packages fetches from, and what to set where it cannot."""

from __future__ import annotations

import re

from mscli.http import host_in
from mscli.paths import PYPI, on_path, package_index

INDEX = "the Python package index"
_FILES = "https://files.pythonhosted.org/simple"
_PYTORCH = "https://download.pytorch.org/whl"
# uv names the address, pip the host of its own index alone, and that not always.
_BY_UV = re.compile(r"Failed to (?:fetch|download):? `?(https?://[^\s`]+)|for url \((https?://[^\s)]+)\)")
_BY_PIP = re.compile(r"HTTPS?ConnectionPool\(host='([^']+)'|(connection broken by|Could not fetch URL)")
_PYTHON = re.compile(r"python-build-standalone")

_PROXY = "Behind a proxy set HTTPS_PROXY."
_MIRROR = "For a mirror of PyPI: export UV_DEFAULT_INDEX=https://MIRROR/simple PIP_INDEX_URL=https://MIRROR/simple"
_NO_PYTHON = "Or install a Python that the engine supports, so that uv fetches none, or set UV_PYTHON_INSTALL_MIRROR."
_NO_PYTORCH = (
    "uv takes this version's torch from there, whatever UV_DEFAULT_INDEX says: ask for the host to be allowed. The "
    "version that mscli chooses needs the package index alone on x86-64: mscli engines install vllm"
)


def addresses(pythons: str | None = None, torch: bool = False) -> tuple[str, ...]:
    """What `make_environment` fetches from, by the settings that its installers read; `pythons` as there.

    `torch`: uv is told a backend."""
    with_uv = on_path("uv") is not None
    used = ["uv"] if with_uv or pythons else []
    used += [] if with_uv else ["pip"]
    indexes = dict.fromkeys(package_index(installer) for installer in used)
    files = (_FILES,) if PYPI in indexes else ()
    return (*indexes, *files, *((_PYTORCH,) if torch else ()))


def remedy(host: str, python: bool = False) -> str:
    """What to set where `host` cannot be reached. `python`: uv wanted a Python of it."""
    if host == host_in(_PYTORCH):
        return f"{_PROXY} {_NO_PYTORCH}"
    return f"{_PROXY} {_NO_PYTHON if python else _MIRROR}"


def unreached(said: str) -> tuple[str, str] | None:
    """The host that an installer could not fetch from, by all that it said, and what to do; None where that is not why
    it failed."""
    if found := _BY_UV.search(said):
        address = found[1] or found[2]
        host = host_in(address)
        return host, remedy(host, bool(_PYTHON.search(address)))
    if found := _BY_PIP.search(said):
        host = found[1] or host_in(package_index("pip"))
        return host, remedy(host)
    return None
