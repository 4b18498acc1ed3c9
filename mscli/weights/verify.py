"""Verifying weights that are on disk: every byte hashed anew, with all cores, and only the bad files fetched again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from mscli.catalog.model import Variant
from mscli.frozen import frozen
from mscli.weights.cache import Cache, cache
from mscli.weights.fault import DEFAULT_TIMEOUTS, Timeouts, unwritable
from mscli.weights.fault import offline as offline_fault
from mscli.weights.from_hub import looked_up, relisted, remembered
from mscli.weights.hub import offline_by_environment
from mscli.weights.listing import Listing, RemoteFile, file_is_right
from mscli.weights.local_folder import in_lm_studio
from mscli.weights.progress import VERIFYING, Listener, Meter, Note
from mscli.weights.pull import pull_from_hub

LOOK_S = 0.2


@frozen
class Verified:
    """What a verification found. `bad`: names of files whose bytes were wrong, `absent`: of those not (wholly) there;
    `repaired`: all of them have been fetched and checked since. `seconds`: of the hashing alone."""

    files: int
    checked_bytes: int
    bad: tuple[str, ...]
    absent: tuple[str, ...]
    repaired: bool
    seconds: float


def verify(
    variant: Variant,
    listener: Listener,
    *,
    repair: bool = True,
    offline: bool = False,
    folder: Path | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> Verified:
    """Hashes the variant's files in the cache (or `folder`) and, with `repair`, fetches what is bad or absent.

    Where the cache is not whole and LM Studio's copy serves, that is hashed. It is never changed: if one of its files
    is bad, all are fetched into the cache, which then serves. Waits for the disk, about 1 GB/s and core. Raises
    MscliError(WEIGHTS_MISSING) when the hub's list of hashes is not known and cannot be asked for; otherwise as
    `ensure`.
    """
    place = cache(folder)
    offline = offline or offline_by_environment()
    listing = remembered(variant, place) if offline else looked_up(variant, place, listener, timeouts)
    if listing is None:
        raise offline_fault(variant.source.repository, None, place.root)
    repository, revision = listing.repository, listing.revision
    start_s = time.monotonic()
    copy = in_lm_studio(variant, listing) if folder is None and not listing.whole else None
    paths = {
        file.remote: copy.folder / file.remote.name if copy else place.whole(repository, revision, file.remote)
        for file in listing.files
        if copy or file.whole
    }
    bad = _bad_files(paths, listener)
    seconds = time.monotonic() - start_s
    absent = tuple(file.remote.name for file in listing.files if file.remote not in paths)
    repaired = False
    if (bad or absent) and repair and not offline:
        for file in bad:
            listener.note(Note("corrupt", f"{paths[file]} is damaged; downloading it again"))
            if copy is None:
                _discard(place, listing, file)
        pull_from_hub(relisted(listing, place), place, listener, timeouts)
        repaired = True
    checked_bytes = sum(file.size_bytes for file in paths)
    return Verified(len(paths), checked_bytes, tuple(file.name for file in bad), absent, repaired, seconds)


def _bad_files(paths: Mapping[RemoteFile, Path | None], listener: Listener) -> list[RemoteFile]:
    """Those whose content has another digest; hashlib frees the interpreter, so threads use every core."""
    hashed, stop = dict.fromkeys(paths, 0), threading.Event()
    meter = Meter(VERIFYING, sum(file.size_bytes for file in paths))

    def check(file: RemoteFile) -> bool:
        def tell(done_bytes: int) -> bool:
            hashed[file] = done_bytes
            return not stop.is_set()

        path = paths[file]
        return path is not None and file_is_right(path, file, tell)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            # The largest first: a core that begins the last large file late is a core idle before.
            order = sorted(paths, key=lambda file: -file.size_bytes)
            pending: dict[Future[bool], RemoteFile] = {pool.submit(check, file): file for file in order}
            left = set(pending)
            while left:
                left = wait(left, LOOK_S, FIRST_COMPLETED).not_done
                current = next((pending[future].name for future in left if future.running()), None)
                listener.progress(meter.look(sum(hashed.values()), current))
        finally:
            stop.set()
    return [file for future, file in pending.items() if not future.result()]


def _discard(place: Cache, listing: Listing, file: RemoteFile) -> None:
    """Removes a bad file's bytes, its blob, and its place in the snapshot; of a link that leads out of the cache, only
    the link. Raises MscliError(FILE)."""
    name = listing.repository
    shown = place.snapshot(name, listing.revision) / file.name
    blob = place.blob(name, file)
    shared = place.shared_bytes(blob)
    try:
        for path in (shown, blob):
            if place.owns(name, path):
                path.unlink(missing_ok=True)
        if shared is not None:
            shared.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(blob, error, 0) from error
