"""Weights of the hub: looked up, fetched whole and checked, verified later, or copied to a folder for machines without
a network.

Loaded only for those: HTTP and TLS take 30 ms to import. The files live in the cache that all Hugging Face tools share;
`folder` names another one of the same layout, as `copy_to` makes it, or a plain folder with the files; HF_HUB_CACHE
makes any other tool use it too. What the cache lacks is taken from LM Studio's models folder if all of it is there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from mscli.catalog.model import Source, Variant
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace
from mscli.weights.cache import Cache, cache
from mscli.weights.fault import DEFAULT_TIMEOUTS, PassingFault, Timeouts, unwritable
from mscli.weights.fault import offline as offline_fault
from mscli.weights.hub import Location, hub, offline_by_environment
from mscli.weights.listing import Listing, RemoteFile, file_is_right, needed
from mscli.weights.local_folder import in_lm_studio, unlisted
from mscli.weights.progress import LISTING, VERIFYING, Listener, Meter, Note, Silence, WeightFiles
from mscli.weights.pull import Pull, pull_from_hub


def fetch(
    variant: Variant,
    listener: Listener,
    *,
    offline: bool = False,
    folder: Path | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> WeightFiles:
    """The weight files, complete and verified; fetches what is missing and waits for it. See ensure.ensure.

    Of a copy in LM Studio's folder only the sizes are compared: `mscli pull --verify` checks its hashes.
    """
    place = cache(folder)
    if offline or folder is not None or offline_by_environment():
        return _found(variant, place, listener, folder)
    try:
        listing = looked_up(variant, place, listener, timeouts)
    except MscliError as error:
        if error.details.get("cause") == "network_proxy":
            with suppress(MscliError):  # files that are not whole are no reason to hide why they cannot be fetched
                return _found(variant, place, listener, None)
        raise
    if not listing.whole:
        if (files := _from_lm_studio(variant, listing, listener)) is not None:
            return files
        pull_from_hub(listing, place, listener, timeouts)
    return _shown(variant, place, listing)


def listed(
    variant: Variant,
    *,
    offline: bool = False,
    folder: Path | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> Listing:
    """What the variant needs, and what of it is here. See ensure.wanted."""
    place = cache(folder)
    if offline or folder is not None or offline_by_environment():
        listing = remembered(variant, place)
    else:
        listing = looked_up(variant, place, Silence(), timeouts)
    if listing is not None and listing.whole:
        return listing
    if folder is None and (copy := in_lm_studio(variant, listing)) is not None:
        return copy.listing(variant)
    if listing is None and (found := unlisted(variant, place, folder)) is not None:
        return found.listing(variant)
    if listing is None:
        raise offline_fault(variant.source.repository, None, place.root)
    return listing


def tried(variant: Variant, listing: Listing, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
    """Ask for the smallest file that is missing, as a pull does. See ensure.tried."""
    missing = [file.remote for file in listing.files if not file.whole]
    if missing and not offline_by_environment():
        smallest = min(missing, key=lambda file: file.size_bytes)
        source = variant.source.repository
        patiently(lambda: hub(timeouts).locate(source, listing.revision, smallest), source, Silence(), timeouts)


def newest(variant: Variant, *, branch: str = "main", timeouts: Timeouts = DEFAULT_TIMEOUTS) -> str:
    """The newest commit of the variant's repository, for `mscli profiles update`. Raises as `ensure` does."""
    repository = variant.source.repository
    return patiently(lambda: hub(timeouts).commit(repository, branch), repository, Silence(), timeouts)


def _found(variant: Variant, place: Cache, listener: Listener, folder: Path | None) -> WeightFiles:
    """The weights as they lie in `place` or `folder`, else in LM Studio's folder, without asking anybody."""
    listing = remembered(variant, place)
    if listing is not None and listing.whole:
        return _shown(variant, place, listing)
    try:
        if listing is None and (files := _unlisted(variant, place, listener, folder)) is not None:
            return files
        raise offline_fault(variant.source.repository, listing.missing_bytes if listing else None, place.root)
    except MscliError:
        if folder is None and (files := _from_lm_studio(variant, listing, listener)) is not None:
            return files
        raise


def _from_lm_studio(variant: Variant, listing: Listing | None, listener: Listener) -> WeightFiles | None:
    found = in_lm_studio(variant, listing)
    if found is None:
        return None
    checked = "sizes match the hub's" if listing else "sizes match their headers"
    said = f"using LM Studio's copy in {found.folder}; {checked} (hashes: mscli pull --verify)"
    listener.note(Note("lm_studio", said))
    return _weight_files(variant, found.folder, found.names)


def _unlisted(variant: Variant, place: Cache, listener: Listener, folder: Path | None) -> WeightFiles | None:
    found = unlisted(variant, place, folder)
    if found is None:
        return None
    listener.note(Note("unchecked", f"no hashes known for {found.folder}; sizes match their headers"))
    return _weight_files(variant, found.folder, found.names)


def _shown(variant: Variant, place: Cache, listing: Listing) -> WeightFiles:
    for file in listing.files:
        place.show(listing.repository, listing.revision, file.remote)
    names = tuple(file.remote.name for file in listing.files)
    return _weight_files(variant, place.snapshot(listing.repository, listing.revision), names)


def _weight_files(variant: Variant, folder: Path, names: tuple[str, ...]) -> WeightFiles:
    """What the engine is given: the (first) GGUF file, else the folder."""
    projector = variant.source.projector
    ggufs = sorted(name for name in names if name.endswith(".gguf") and name != projector)
    model = folder / ggufs[0] if variant.format == "gguf" and ggufs else folder
    size = sum((folder / name).stat().st_size for name in names)
    return WeightFiles(str(model), str(folder / projector) if projector else None, size)


T = TypeVar("T")
TRIES = 3


def remembered(variant: Variant, place: Cache) -> Listing | None:
    """The variant's listing as `place` remembers it, with what is there now; None when the hub was never asked."""
    source = _hub_source(variant)
    commit = place.commit(source.repository, source.revision)
    files = place.files(source.repository, commit) if commit else None
    if commit is None or files is None:
        return None
    wanted = tuple(place.want(source.repository, commit, file) for file in needed(variant, files))
    return Listing(source.repository, commit, wanted)


def looked_up(variant: Variant, place: Cache, listener: Listener, timeouts: Timeouts) -> Listing:
    """The variant's listing; asks the hub when `place` does not remember it. Raises MscliError(DOWNLOAD_FAILED)."""
    source = _hub_source(variant)
    if (listing := remembered(variant, place)) is not None:
        return listing
    listener.progress(Meter(LISTING, 0).look(0))
    commit, files = patiently(
        lambda: hub(timeouts).files(source.repository, source.revision), source.repository, listener, timeouts
    )
    with suppress(MscliError):  # a cache that cannot be written can still be used
        place.remember(source.repository, source.revision, commit, files)
    wanted = tuple(place.want(source.repository, commit, file) for file in needed(variant, files))
    return Listing(source.repository, commit, wanted)


def relisted(listing: Listing, place: Cache) -> Listing:
    """The same files, with what of them is in `place` now."""
    files = tuple(place.want(listing.repository, listing.revision, file.remote) for file in listing.files)
    return replace(listing, files=files)


def patiently(call: Callable[[], T], repository: str, listener: Listener, timeouts: Timeouts) -> T:
    """Makes a call to the hub, three times if need be; waits as long as the hub asks, up to `timeouts.retry_s`."""
    deadline_s = time.monotonic() + timeouts.retry_s
    for tries in range(1, TRIES + 1):
        try:
            return call()
        except PassingFault as fault:
            pause_s = fault.wait_s if fault.wait_s is not None else 0.5 * tries
            if tries == TRIES or time.monotonic() + pause_s > deadline_s:
                raise fault.final(repository) from fault
            code = "rate_limit" if fault.cause == "hf_rate_limit" else "retrying"
            listener.note(Note(code, f"{fault.seen}; retrying in {pause_s:g} s"))
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def _hub_source(variant: Variant) -> Source:
    if variant.source.kind != "hub":
        message = f"{variant.name} comes from {variant.source.kind}, not from the hub"
        raise MscliError(Code.ENGINE_UNSUPPORTED, message, "the Ollama server pulls its own weights")
    return variant.source


def copy_to(
    variant: Variant,
    folder: Path,
    listener: Listener,
    *,
    offline: bool = False,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> Listing:
    """Puts the variant's files into `folder`, checked while they are copied, and returns what it now holds.

    Goes on where an earlier copy stopped. Raises as `ensure`, and MscliError(WEIGHTS_MISSING, cause corrupt_weights)
    when a file in this machine's cache is damaged.
    """
    here, there = cache(), cache(folder)
    offline = offline or offline_by_environment()
    listing = remembered(variant, here) if offline else looked_up(variant, here, listener, timeouts)
    if listing is None or (offline and not listing.whole):
        raise offline_fault(variant.source.repository, listing.missing_bytes if listing else None, here.root)
    all_files = here.files(listing.repository, listing.revision) or [file.remote for file in listing.files]
    there.remember(listing.repository, variant.source.revision, listing.revision, all_files)
    hub_now = hub(timeouts)

    def locate(file: RemoteFile) -> Location:
        local = here.whole(listing.repository, listing.revision, file)
        if local is not None:
            return Location(local.as_uri(), {})
        return hub_now.locate(listing.repository, listing.revision, file)

    wanted = relisted(listing, there)
    Pull(wanted, there, locate, listener, timeouts).run()
    return relisted(wanted, there)


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
    from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait  # no start needs them

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
