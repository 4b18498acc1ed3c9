"""Run by an engine's own Python (`python -c`), to tell what is in its environment and to import it there.

Knows nothing of mscli and needs no more than a standard library from 3.8 on. Takes one JSON object as its argument
{"packages": [...], "owners": [...], "imports": [...]} and writes JSON objects, a line each: first the facts, then for
every import {"importing": name} before it and {"imported": name} or {"failed": name, "error": traceback} after it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# What follows lies in no folder of the engine's: without this a file beside the shell's folder would go before it.
if sys.path and sys.path[0] == "":
    del sys.path[0]


def tell(**told: object) -> None:
    """One line of the answer."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def packaging() -> Any:
    """The library that reads requirements, where some package has brought it along."""
    for name in ("packaging", "pip._vendor.packaging", "setuptools._vendor.packaging"):
        try:
            importlib.import_module(name + ".requirements")
            return sys.modules[name]
        except ImportError:
            continue
    return None


def version(name: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def unmet(owner: str, library: Any) -> list[dict[str, object]]:
    """What a distribution asks for and does not find: {by, name, wants, found, older}."""
    found: list[dict[str, object]] = []
    for text in importlib.metadata.requires(owner) or ():
        wanted = library.requirements.Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        there = version(wanted.name)
        if there is not None and wanted.specifier.contains(there, prereleases=True):
            continue
        found.append(
            {
                "by": owner,
                "name": wanted.name.lower().replace("-", "_"),
                "wants": str(wanted.specifier),
                "found": there,
                "older": there is not None and older(there, wanted.specifier, library),
            }
        )
    return found


def older(there: str, specifier: Any, library: Any) -> bool:
    """Whether a version lies below what is asked for."""
    parse = importlib.import_module(library.__name__ + ".version").Version
    least = [parse(each.version) for each in specifier if each.operator in (">=", "==", ">", "~=", "===")]
    return bool(least) and parse(there) < max(least)


def python_refused(owner: str, library: Any) -> str | None:
    """The owner's own condition on Python's version where this one does not meet it."""
    wanted: str = importlib.metadata.metadata(owner)["Requires-Python"] or ""
    met = library.requirements.SpecifierSet(wanted).contains(platform.python_version(), prereleases=True)
    return None if met else wanted


def torch_build() -> dict[str, str | None] | None:
    """What PyTorch was built for, read from its file: importing it takes seconds."""
    try:
        spec = importlib.util.find_spec("torch")
        told: dict[str, Any] = {}
        exec(Path(spec.origin).with_name("version.py").read_text() if spec and spec.origin else "", told)
    except (OSError, ImportError, SyntaxError, ValueError, NameError):
        return None
    return {"version": str(told.get("__version__")), "cuda": told.get("cuda"), "hip": told.get("hip")}


def compiled_for() -> list[str]:
    """The architectures that the imported PyTorch holds code for, as it lists them itself."""
    flags = getattr(sys.modules["torch"]._C, "_cuda_getArchFlags", None)
    return (flags() or "").split() if flags else []


def knows_mistral3() -> bool:
    """Whether the imported Transformers knows the type of model that Mistral Small 3.1 is."""
    return "mistral3" in importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING_NAMES


def native_bitsandbytes() -> bool:
    """Whether the imported bitsandbytes found its CUDA library."""
    library = importlib.import_module("bitsandbytes.cextension").lib
    return bool(getattr(library, "compiled_with_cuda", False))


ASIDE: dict[str, Callable[[], object]] = {
    "torch": compiled_for,
    "transformers": knows_mistral3,
    "bitsandbytes": native_bitsandbytes,
}


def facts(asked: Mapping[str, Any]) -> dict[str, object]:
    """What is known without an import."""
    library = packaging()
    owners = [owner for owner in asked["owners"] if version(owner)]
    refused = [text for owner in owners if (text := python_refused(owner, library))] if library else []
    return {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in asked["packages"] if version(name)},
        "torch": torch_build(),
        "unmet": [each for owner in owners for each in unmet(owner, library)] if library else None,
        "python_refused": refused[0] if refused else None,
        "headers": Path(sysconfig.get_paths()["include"], "Python.h").exists(),
        "compiler": shutil.which(os.environ.get("CC") or "gcc") or shutil.which("cc") or shutil.which("clang"),
        "ninja": bool(shutil.which("ninja")) or Path(sys.prefix, "bin", "ninja").exists(),
    }


def bring(name: str) -> None:
    """Import a module, and tell how that went, whatever it raises."""
    tell(importing=name)
    try:
        importlib.import_module(name)
        told = ASIDE[name]() if name in ASIDE else None
    except BaseException:
        tell(failed=name, error=traceback.format_exc())
        return
    tell(imported=name, told=told)


def main() -> None:
    """Answer the one question on the command line."""
    asked = json.loads(sys.argv[1])
    tell(facts=facts(asked))
    for name in asked["imports"]:
        bring(name)


main()
