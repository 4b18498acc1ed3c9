"""Stored weights: what lies on this disk, how large, last used when, which profiles need it; deleting it, verifying
it, and copying it to a folder for machines without a network."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import Profile
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.weights.cache import Cache, cache, held, holder
from mscli.weights.fault import DEFAULT_TIMEOUTS, Timeouts, unwritable
from mscli.weights.fault import offline as offline_fault
from mscli.weights.listing import Listing, RemoteFile, file_is_right, matching
from mscli.weights.local_folder import in_lm_studio
from mscli.weights.partial import partial_paths
from mscli.weights.progress import VERIFYING, Listener, Meter, Note

Names = tuple[str, str]  # of a model and its variant


@frozen
class Stored:
    """Files of a repository at one commit that belong together: those of a variant, or the rest that none asks for.

    `files`: their places in the snapshot; `unfinished`: files of which only a part has arrived. `size_bytes`: what both
    take on disk, `unfinished_bytes` the latter alone. `last_used_s`: seconds since the epoch when one was last read or
    written, as the file system tells (often to the day); None when none is whole. `variants`: "model:variant" names,
    `profiles`: those that use one of them.
    """

    repository: str
    revision: str
    files: tuple[Path, ...]
    unfinished: tuple[Path, ...]
    size_bytes: int
    unfinished_bytes: int
    last_used_s: float | None
    variants: tuple[str, ...]
    profiles: tuple[str, ...]


def on_disk(profiles: Iterable[Profile], models: Mapping[str, Model], folder: Path | None = None) -> tuple[Stored, ...]:
    """What the hub cache (or `folder`) holds of every repository that a model of the catalogue names, largest first.

    A file that two variants share counts for each. Reads no file's content and writes nothing.
    """
    place, users = cache(folder), list(profiles)
    named = {(model.name, variant.name): variant for model in models.values() for variant in model.variants.values()}
    hub_variants = {names: variant for names, variant in named.items() if variant.source.kind == "hub"}
    found = [
        stored
        for repository in sorted({variant.source.repository for variant in hub_variants.values()})
        for stored in _repository(place, repository, hub_variants, users)
    ]
    return tuple(sorted(found, key=lambda stored: -stored.size_bytes))


def prune_candidates(
    stored: Iterable[Stored], keep_paths: Collection[Path], keep_profiles: Collection[str] | None = None
) -> tuple[Stored, ...]:
    """Those that no profile uses (with `keep_profiles`: none of these), and that hold none of `keep_paths`.

    `keep_paths`: files or folders that instances serve from.
    """
    kept = {path.absolute() for path in keep_paths}

    def needed(one: Stored) -> bool:
        served = any(path in kept or kept & set(path.parents) for path in one.files)
        return served or any(keep_profiles is None or name in keep_profiles for name in one.profiles)

    return tuple(one for one in stored if not needed(one))


def _repository(
    place: Cache, repository: str, variants: Mapping[Names, Variant], profiles: Sequence[Profile]
) -> Iterator[Stored]:
    """What one repository's folder holds: by commit, and at each by the sets of files that variants ask for."""
    own = {names: variant for names, variant in variants.items() if variant.source.repository == repository}
    pinned = {names: place.commit(repository, variant.source.revision) for names, variant in own.items()}
    snapshots = place.repository(repository) / "snapshots"
    commits = {path.name for path in snapshots.iterdir() if path.is_dir()} if snapshots.is_dir() else set()
    for commit in sorted(commits | {commit for commit in pinned.values() if commit}):
        here = _Commit.of(place, repository, commit)
        sets: dict[tuple[str, ...], list[Names]] = {}
        for names, variant in own.items():
            if pinned[names] == commit and (found := matching(here.names, variant)):
                sets.setdefault(found, []).append(names)
        asked_for = {name for found in sets for name in found}
        if rest := tuple(name for name in here.names if name not in asked_for):
            sets[rest] = []
        for found, names_of_set in sets.items():
            users = [profile.name for profile in profiles if (profile.model, profile.variant) in names_of_set]
            yield here.stored(found, names_of_set, users)


@frozen
class _Commit:
    """What lies here of one commit: places in the snapshot, and unfinished files, both by the repository's names."""

    repository: str
    revision: str
    shown: Mapping[str, Path]
    unfinished: Mapping[str, tuple[Path, ...]]

    @classmethod
    def of(cls, place: Cache, repository: str, commit: str) -> _Commit:
        """Looks at the disk."""
        folder = place.snapshot(repository, commit)
        shown = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
        blobs = place.repository(repository) / "blobs"
        listed = place.files(repository, commit) or ()
        partial = {file.name: tuple(sorted(blobs.glob(f"{file.etag}*.incomplete"))) for file in listed}
        return cls(repository, commit, shown, {name: paths for name, paths in partial.items() if paths})

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of which something is here."""
        return tuple(dict.fromkeys([*self.shown, *self.unfinished]))

    def stored(self, found: Sequence[str], names: Sequence[Names], users: Sequence[str]) -> Stored:
        """The value for the files called `found`."""
        files = tuple(self.shown[name] for name in found if name in self.shown)
        unfinished = tuple(path for name in found for path in self.unfinished.get(name, ()))
        status = [path.stat() for path in files]
        # Unfinished files are sparse: their blocks count, not their length.
        unfinished_bytes = sum(path.stat().st_blocks * 512 for path in unfinished)
        return Stored(
            repository=self.repository,
            revision=self.revision,
            files=files,
            unfinished=unfinished,
            size_bytes=sum({each.st_ino: each.st_size for each in status}.values()) + unfinished_bytes,
            unfinished_bytes=unfinished_bytes,
            last_used_s=max((max(each.st_atime, each.st_mtime) for each in status), default=None),
            variants=tuple(f"{model}:{variant}" for model, variant in names),
            profiles=tuple(sorted(users)),
        )


def prune(stored: Stored, folder: Path | None = None) -> int:
    """Deletes these files from the hub cache (or `folder`), and of their blobs those that no other snapshot shows.

    Nothing outside the repository's own folder is ever deleted: of a link that leads out of it, only the link.
    Returns the bytes freed. Raises MscliError(FILE) when another process is fetching one of them right now, or when a
    file cannot be deleted.
    """
    place = cache(folder)
    repository = place.repository(stored.repository)
    name = stored.repository
    own = [path for path in (*stored.files, *stored.unfinished) if place.owns(name, path)]
    blobs = {blob for path in own if (blob := place.own_blob(name, path)) is not None}
    etags = {blob.name for blob in blobs} | {path.name.split(".")[0] for path in stored.unfinished}
    with held([place.root / ".locks" / repository.name / f"{etag}.lock" for etag in etags], _refuse):
        try:
            freed = sum(_delete(path) for path in own)
            for etag in etags:
                _delete(partial_paths(repository / "blobs" / etag)[1])
            freed += sum(_delete_blob(place, blob) for blob in blobs - _shown_blobs(place, name))
            _sweep(place, name, stored.revision)
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


def _delete_blob(place: Cache, blob: Path) -> int:
    """Deletes a blob; its bytes in the store of all repositories only when no other repository links to them."""
    shared = place.shared_bytes(blob)
    freed = _delete(blob)
    if shared is None:
        return freed
    if any(other.is_symlink() and other.resolve() == shared for other in place.root.glob("*--*/blobs/*")):
        return freed
    _delete(shared.with_name(f"{shared.name}.refs"))
    return freed + _delete(shared)


def _shown_blobs(place: Cache, name: str) -> set[Path]:
    shown = (place.repository(name) / "snapshots").rglob("*")
    return {blob for path in shown if (blob := place.own_blob(name, path)) is not None}


def _sweep(place: Cache, name: str, revision: str) -> None:
    """Removes folders that nothing is left in, and the repository's own when it shows no file and lacks none."""
    repository, snapshot = place.repository(name), place.snapshot(name, revision)
    for folder in sorted((snapshot, *(path for path in snapshot.rglob("*") if path.is_dir())), reverse=True):
        if folder.is_symlink() or not place.owns(name, folder):
            continue
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    if not any(_files(repository / "snapshots")) and not any(_files(repository / "blobs")):
        shutil.rmtree(repository, ignore_errors=True)


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if not path.is_dir())


def _refuse(lock: Path) -> None:
    pid = holder(lock)
    who = f"process {pid}" if pid else "another process"
    raise MscliError(Code.FILE, f"{who} is downloading these weights", "stop it first, or keep them")


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
    from mscli.weights.from_hub import looked_up, relisted, remembered
    from mscli.weights.hub import Location, hub, offline_by_environment  # HTTP and TLS take 30 ms to import
    from mscli.weights.pull import Pull

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
    from mscli.weights.from_hub import looked_up, relisted, remembered
    from mscli.weights.hub import offline_by_environment
    from mscli.weights.pull import pull_from_hub

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
