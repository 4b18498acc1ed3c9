"""The hub cache on disk, in the layout of the Hugging Face libraries: every tool finds what any of them fetched.

models--<org>--<name>/blobs/<etag>              the bytes, named after their hash
models--<org>--<name>/snapshots/<commit>/<file> links to them
models--<org>--<name>/refs/<branch>             the commit a branch named last
models--<org>--<name>/mscli/<commit>.json       mscli's own: what the hub listed at that commit, for work offline
.locks/models--<org>--<name>/<etag>.lock        held (flock) by whoever fetches that blob, mscli or another tool,
                                                so that two pulls of one repository share one download
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path

from mscli.errors import Code, MscliError
from mscli.frozen import asdict, frozen
from mscli.paths import hub_cache
from mscli.untrusted import parse_json, stays_below
from mscli.weights.fault import unwritable
from mscli.weights.listing import COMMIT, RemoteFile, WantedFile
from mscli.weights.partial import arrived_bytes


@frozen
class Cache:
    """One cache folder, which need not exist yet. Reading it never writes, so a read-only cache can be used."""

    root: Path

    def repository(self, name: str) -> Path:
        """The folder of the model repository `name`."""
        return self.root / ("models--" + name.replace("/", "--"))

    def blob(self, repository: str, file: RemoteFile) -> Path:
        """Where the bytes of `file` belong."""
        return self.repository(repository) / "blobs" / file.etag

    def lock(self, repository: str, file: RemoteFile) -> Path:
        """The lock that whoever fetches `file` holds."""
        return self.root / ".locks" / self.repository(repository).name / f"{file.etag}.lock"

    def snapshot(self, repository: str, commit: str) -> Path:
        """The folder that shows the repository as it is at `commit`."""
        return self.repository(repository) / "snapshots" / commit

    def commit(self, repository: str, revision: str) -> str | None:
        """The commit that `revision` names: itself, or what a branch named when it was last looked up (None: never).

        Raises MscliError(USAGE) for what is not a valid revision."""
        if COMMIT.fullmatch(revision):
            return revision
        ref = self._ref(repository, revision)
        commit = ref.read_text(encoding="utf-8", errors="replace").strip() if ref.is_file() else ""
        return commit if COMMIT.fullmatch(commit) else None

    def files(self, repository: str, commit: str) -> tuple[RemoteFile, ...] | None:
        """What the hub listed at `commit`, if it was ever asked: a commit never changes."""
        path = self._listing(repository, commit)
        try:
            return tuple(RemoteFile(**entry) for entry in parse_json(path.read_bytes()))
        except (OSError, ValueError, TypeError):  # never asked, not readable, or written by another version
            return None

    def remember(self, repository: str, revision: str, commit: str, files: Iterable[RemoteFile]) -> None:
        """Keeps what the hub listed at `commit`, and that `revision` names it. Raises MscliError(FILE), (DISK_FULL)."""
        _write(self._listing(repository, commit), json.dumps([asdict(file) for file in files], indent=1))
        if revision != commit:
            _write(self._ref(repository, revision), commit)

    def whole(self, repository: str, commit: str, file: RemoteFile) -> Path | None:
        """Where `file` lies with its right size, in the snapshot or only as a blob; None when it does not."""
        paths = (self.snapshot(repository, commit) / file.name, self.blob(repository, file))
        return next((path for path in paths if path.is_file() and path.stat().st_size == file.size_bytes), None)

    def want(self, repository: str, commit: str, file: RemoteFile) -> WantedFile:
        """How much of `file` is here."""
        if self.whole(repository, commit, file) is not None:
            return WantedFile(file, file.size_bytes, True)
        return WantedFile(file, arrived_bytes(self.blob(repository, file), file.size_bytes), False)

    def show(self, repository: str, commit: str, file: RemoteFile) -> Path:
        """Puts a whole blob into the snapshot, as a link or, where the file system has none, by moving it there."""
        blob, place = self.blob(repository, file), self.snapshot(repository, commit) / file.name
        if place.is_file() and place.stat().st_size == file.size_bytes:
            return place
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            _link(blob, place)
        except OSError as error:
            raise unwritable(place, error, file.size_bytes) from error
        return place

    def owns(self, repository: str, path: Path) -> bool:
        """Whether `path` itself, not what it links to, lies in the repository's folder, with no link leading out of it
        on the way. Only such files and links may be deleted: anything can stand at the other end of a link."""
        return path.parent.resolve().is_relative_to(self.repository(repository).resolve())

    def own_blob(self, repository: str, shown: Path) -> Path | None:
        """The blob of this repository that a place in a snapshot links to, one step only (a blob may itself be a link
        to the store that all repositories share); None for a link to anywhere else, and for what is no link."""
        if not shown.is_symlink():
            return None
        target = Path(os.path.normpath(shown.parent / shown.readlink()))
        own = target.parent.resolve() == self.repository(repository).resolve() / "blobs"
        return target if own else None

    def shared_bytes(self, blob: Path) -> Path | None:
        """The file in the store of all repositories (ROOT/blobs) that a blob links to; None for any other blob."""
        target = blob.resolve()
        own_store = blob.is_symlink() and target.is_relative_to(self.root.resolve() / "blobs")
        return target if own_store else None

    def _ref(self, repository: str, revision: str) -> Path:
        if not stays_below(revision):
            raise MscliError(Code.USAGE, f"'{revision}' is not a valid revision", "use a branch, a tag or a commit")
        return self.repository(repository) / "refs" / revision

    def _listing(self, repository: str, commit: str) -> Path:
        return self.repository(repository) / "mscli" / f"{commit}.json"


def cache(folder: Path | None = None) -> Cache:
    """The cache in `folder`, by default the one of this user (HF_HUB_CACHE, HF_HOME)."""
    return Cache((folder or hub_cache()).absolute())


def _link(blob: Path, place: Path) -> None:
    try:
        place.symlink_to(os.path.relpath(blob, place.parent))
    except FileExistsError:
        return
    except OSError:
        # FAT and exFAT know no links; two names of one small file need two copies there.
        shutil.copyfile(blob, place) if blob.stat().st_size < 1 << 20 else blob.replace(place)


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise unwritable(path, error, len(text)) from error


@contextmanager
def held(paths: Iterable[Path], wait: Callable[[Path], None]) -> Iterator[None]:
    """Holds the locks of all `paths`. While another process has one, calls `wait` with it, over and over: `wait` sleeps
    a moment, and raises when enough is enough. Locks are taken in one order everywhere, so nobody waits in a circle."""
    with ExitStack() as stack:
        for path in sorted(paths):
            while (lock := _try_lock(path)) is None:
                wait(path)
            stack.enter_context(lock)
        yield


def holder(path: Path) -> int | None:
    """The process that holds the lock on `path`, as the kernel tells; None when it does not (another container)."""
    try:
        status = path.stat()
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    rows = (line.split() for line in locks.splitlines())
    pids = [int(row[4]) for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5] == wanted]
    return next((pid for pid in pids if pid > 0), None)


def _try_lock(path: Path) -> FileIO | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = FileIO(path, "r+", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))
    except OSError as error:
        raise unwritable(path, error, 0) from error
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        return file  # file systems without flock: two pulls then write the same bytes to the same places
    if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
        file.close()  # its last holder removed the file between our open and our lock
        return _try_lock(path)
    return file
