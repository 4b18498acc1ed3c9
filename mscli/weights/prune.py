"""Freeing disk space: stored weights deleted from the hub cache without a trace, blobs that others show left alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from mscli.errors import Code, MscliError
from mscli.weights.cache import cache
from mscli.weights.fault import unwritable
from mscli.weights.lock import held, holder
from mscli.weights.partial import partial_paths
from mscli.weights.stored import Stored


def prune(stored: Stored, folder: Path | None = None) -> int:
    """Deletes these files from the hub cache (or `folder`), and of their blobs those that no other snapshot shows.

    Returns the bytes freed. Raises MscliError(FILE) when another process is fetching one of them right now, or when a
    file cannot be deleted.
    """
    place = cache(folder)
    repository = place.repository(stored.repository)
    blobs = {blob for file in stored.files if (blob := _blob(file)) is not None}
    etags = {blob.name for blob in blobs} | {path.name.split(".")[0] for path in stored.unfinished}
    with held([place.root / ".locks" / repository.name / f"{etag}.lock" for etag in etags], _refuse):
        try:
            freed = sum(_delete(path) for path in (*stored.files, *stored.unfinished))
            for etag in etags:
                _delete(partial_paths(repository / "blobs" / etag)[1])
            freed += sum(_delete_blob(blob, place.root) for blob in blobs - _shown_blobs(repository))
            _sweep(repository, stored.revision)
        except OSError as error:
            raise unwritable(repository / stored.revision, error, 0) from error
    return freed


def _delete(path: Path) -> int:
    """Deletes a file or link; returns the bytes that its blocks took (0 for a link)."""
    if not path.is_symlink() and not path.exists():
        return 0
    freed = 0 if path.is_symlink() else path.stat().st_blocks * 512
    path.unlink()
    return freed


def _delete_blob(blob: Path, root: Path) -> int:
    """Deletes a blob; one in the store that all repositories share only when no other repository links to it."""
    target = blob.resolve()
    freed = _delete(blob)
    if target == blob or not target.is_relative_to(root):
        return freed
    if any(other.is_symlink() and other.resolve() == target for other in root.glob("models--*/blobs/*")):
        return freed
    _delete(target.with_name(f"{target.name}.refs"))
    return freed + _delete(target)


def _blob(shown: Path) -> Path | None:
    """The blob that a place in a snapshot links to, one step only: a blob may itself be a link to the shared store."""
    return Path(os.path.normpath(shown.parent / shown.readlink())) if shown.is_symlink() else None


def _shown_blobs(repository: Path) -> set[Path]:
    return {blob for path in (repository / "snapshots").rglob("*") if (blob := _blob(path)) is not None}


def _sweep(repository: Path, revision: str) -> None:
    """Removes folders that nothing is left in, and the repository's own when it shows no file and lacks none."""
    snapshot = repository / "snapshots" / revision
    for folder in sorted((snapshot, *(path for path in snapshot.rglob("*") if path.is_dir())), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    if not any(_files(repository / "snapshots")) and not any(_files(repository / "blobs")):
        shutil.rmtree(repository, ignore_errors=True)


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if not path.is_dir())


def _refuse(lock: Path) -> None:
    pid = holder(lock)
    who = f"Process {pid}" if pid else "Another process"
    raise MscliError(Code.FILE, f"{who} is fetching these weights right now.", "Stop it first, or leave them.")
