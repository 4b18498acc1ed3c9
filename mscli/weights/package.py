"""Weights that come inside the mscli package itself: nothing is fetched, only looked at."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from mscli.catalog.model import Model, Variant
from mscli.engines.engine import WeightFiles
from mscli.errors import Code, MscliError


def packaged(model: Model, variant: Variant) -> WeightFiles:
    """The weight files inside the package, whose sizes add up to the variant's `download_bytes`.

    Names are relative to the mscli package. Raises MscliError(WEIGHTS_MISSING) when a file is absent or of another size.
    """
    root = Path(os.fspath(resources.files("mscli")))  # type: ignore[call-overload]
    names = [*variant.source.files, *([variant.source.projector] if variant.source.projector else [])]
    if absent := [name for name in names if not (root / name).is_file()]:
        raise _broken(model, f"{', '.join(absent)} is not in {root}", "model_not_found")
    size = sum((root / name).stat().st_size for name in set(names))
    if size != variant.download_bytes:
        seen = f"its files have {size:,} bytes, {variant.download_bytes:,} belong there"
        raise _broken(model, seen, "corrupt_weights")
    first = root / variant.source.files[0]
    projector = str(root / variant.source.projector) if variant.source.projector else None
    return WeightFiles(str(first if variant.format == "gguf" else first.parent), projector, size)


def _broken(model: Model, seen: str, cause: str) -> MscliError:
    message = f"The weights of {model.name} that come with mscli are not whole: {seen}."
    return MscliError(
        Code.WEIGHTS_MISSING, message, "Install mscli again: pip install --force-reinstall mscli", {"cause": cause}
    )
