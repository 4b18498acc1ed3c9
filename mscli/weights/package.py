"""Weights that come inside the mscli package itself: nothing is fetched, only looked at."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mscli.catalog.model import Model, Variant
from mscli.errors import Code, MscliError
from mscli.weights.files import WeightFiles


def packaged(model: Model, variant: Variant) -> WeightFiles:
    """The weight files inside the package, whose sizes add up to the variant's `download_bytes`.

    Names are relative to the mscli package. Raises MscliError(WEIGHTS_MISSING) for an absent file or another size.
    """
    size = sum(size for _, size in package_files(model, variant))
    if size != variant.download_bytes:
        seen = f"its files have {size:,} bytes, {variant.download_bytes:,} belong there"
        raise _broken(model, seen, "corrupt_weights")
    first = _root() / variant.source.files[0]
    projector = str(_root() / variant.source.projector) if variant.source.projector else None
    return WeightFiles(str(first if variant.format == "gguf" else first.parent), projector, size)


def package_files(model: Model, variant: Variant) -> tuple[tuple[str, int], ...]:
    """Name and bytes of each of the variant's files. Raises MscliError(WEIGHTS_MISSING) when one is absent."""
    projector = variant.source.projector
    names = tuple(dict.fromkeys((*variant.source.files, *([projector] if projector else []))))
    if absent := [name for name in names if not (_root() / name).is_file()]:
        raise _broken(model, f"{', '.join(absent)} is not in {_root()}", "model_not_found")
    return tuple((name, (_root() / name).stat().st_size) for name in names)


def _root() -> Path:
    with resources.as_file(resources.files("mscli")) as root:
        return root


def _broken(model: Model, seen: str, cause: str) -> MscliError:
    message = f"The weights of {model.name} that come with mscli are not whole: {seen}."
    hint = "Install mscli again: pip install --force-reinstall mscli"
    return MscliError(Code.WEIGHTS_MISSING, message, hint, {"cause": cause})
