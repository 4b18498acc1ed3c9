"""Which folders a container must see to read the weights: the files' own, and those that links among them lead to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_LINKS_AT_MOST = 40  # as many as the kernel follows


def folders(model: Path) -> tuple[Path, ...]:
    """The folders to mount, each at its own place, so that every link reads the same inside and outside.

    A snapshot of the hub's cache is a folder of relative links into the `blobs` beside it; a folder brought by disk may
    hold links to anywhere. None lies below another. Reads the folder; empty when it is not there.
    """
    real = model.resolve()
    if not real.exists():
        return ()
    wanted = {real if real.is_dir() else real.parent}
    files = (Path(top, name) for top, _, names in os.walk(real) for name in names)
    for file in files if real.is_dir() else iter([real]):
        wanted |= {place.parent for place in _ways(file)}
    return _outermost({*wanted, *_repositories(wanted)})


def _ways(file: Path) -> Iterator[Path]:
    """Every place that a file's links lead over, and where its bytes lie."""
    place = file
    for _ in range(_LINKS_AT_MOST):
        if not place.is_symlink():
            break
        place = Path(os.path.normpath(place.parent / place.readlink()))
        yield place
    if place.exists():
        yield place.resolve()


def _repositories(found: set[Path]) -> set[Path]:
    """Of a snapshot and its blobs, the folder of the repository that holds both: one mount in place of two."""
    return {
        folder.parent.parent
        for folder in found
        if folder.parent.name == "snapshots" and folder.parent.parent / "blobs" in found
    }


def _outermost(found: set[Path]) -> tuple[Path, ...]:
    return tuple(sorted(folder for folder in found if not any(parent in found for parent in folder.parents)))
