"""A pull: the missing files of a listing, fetched, checked, and put in their places in the cache."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.weights.cache import Cache, held, holder
from mscli.weights.download import CONNECTIONS, Checker, Download, Fetcher, Job, Worker
from mscli.weights.fault import PassingFault, Timeouts, check_room
from mscli.weights.hub import Location, hub
from mscli.weights.listing import Listing, RemoteFile, WantedFile
from mscli.weights.partial import Partial
from mscli.weights.progress import DONE, DOWNLOADING, VERIFYING, WAITING, Listener, Meter, Note, RateWatch

LOOK_S = 0.2
LAST_WORDS_S = 1.0


@frozen
class Pull:
    """What to fetch where. `locate` says where the bytes of a file lie (see Hub.locate)."""

    listing: Listing
    cache: Cache
    locate: Callable[[RemoteFile], Location]
    listener: Listener
    timeouts: Timeouts

    def run(self) -> None:
        """Fetches what is missing and waits for it; returns when every file is whole, checked and in its place.

        Another process that fetches the same files is waited for instead. Raises MscliError(DOWNLOAD_FAILED),
        (DISK_FULL) or (FILE); however it ends, the bytes that arrived stay.
        """
        repository = self.listing.repository
        missing = {file.remote.etag: file.remote for file in self.listing.files if not file.whole}
        locks = [self.cache.lock(repository, file) for file in missing.values()]
        with held(locks, _Patience(self, tuple(missing.values()))):
            todo = [wanted for file in missing.values() if not (wanted := self._want(file)).whole]
            check_room(self.cache.root, sum(file.missing_bytes for file in todo), repository)
            if todo:
                self._fetch(todo)
        for wanted in self.listing.files:
            self._show(wanted.remote)
        total = self.listing.total_bytes
        self.listener.progress(Meter(DONE, total).look(total))

    def _want(self, file: RemoteFile) -> WantedFile:
        return self.cache.want(self.listing.repository, self.listing.revision, file)

    def _show(self, file: RemoteFile) -> Path:
        return self.cache.show(self.listing.repository, self.listing.revision, file)

    def _fetch(self, todo: Sequence[WantedFile]) -> None:
        repository = self.listing.repository
        blobs = [(file.remote, self.cache.blob(repository, file.remote)) for file in todo]
        jobs = [Job(file, Partial(blob, file.size_bytes)) for file, blob in blobs]
        if kept := sum(file.present_bytes for file in todo):
            self.listener.note(Note("resumed", f"resuming at {kept / 2**20:,.2f} MiB"))
        download = Download(repository, jobs, self.locate, self._show, self.timeouts)
        with _crew(download) as fetchers:
            _watch(download, fetchers, self.listener, self.listing.total_bytes)


def pull_from_hub(listing: Listing, cache: Cache, listener: Listener, timeouts: Timeouts) -> None:
    """Fetches what `cache` lacks of the listing from the hub in force. Waits and raises as `Pull.run` does."""
    source = hub(timeouts)
    locate = partial(source.locate, listing.repository, listing.revision)
    Pull(listing, cache, locate, listener, timeouts).run()


class _Patience:
    """Waits for the process that fetches the same files, and shows how far it is."""

    def __init__(self, pull: Pull, files: Sequence[RemoteFile]) -> None:
        self._pull, self._files = pull, files
        self._meter = Meter(WAITING, sum(file.size_bytes for file in files))
        self._arrived, self._since_s, self._told = -1, time.monotonic(), False

    def __call__(self, lock: Path) -> None:
        """Sleeps a moment. Raises MscliError(DOWNLOAD_FAILED) when the other has not moved for `retry_s`."""
        pid = holder(lock)
        other = f"process {pid}" if pid else "another process"
        if not self._told:
            self._pull.listener.note(Note("waiting", f"{other} is already downloading these files: waiting for it"))
            self._told = True
        if (arrived := sum(self._arrived_bytes(file) for file in self._files)) != self._arrived:
            self._arrived, self._since_s = arrived, time.monotonic()
        elif time.monotonic() - self._since_s > self._pull.timeouts.retry_s:
            message = f"{other} is downloading {self._pull.listing.repository}, but receives no data"
            hint = f"stop it ({f'kill {pid}' if pid else f'it holds {lock}'}) and run the same command again"
            raise MscliError(Code.DOWNLOAD_FAILED, message, hint, {"cause": "stalled_download", "pid": pid})
        self._pull.listener.progress(self._meter.look(arrived, self._files[0].name))
        time.sleep(LOOK_S)

    def _arrived_bytes(self, file: RemoteFile) -> int:
        """Bytes on disk of a file that somebody fetches; other tools name their unfinished files in other ways."""
        wanted = self._pull._want(file)
        blob = self._pull.cache.blob(self._pull.listing.repository, file)
        others = (path.stat().st_blocks * 512 for path in blob.parent.glob(f"{blob.name}*.incomplete"))
        return min(max(wanted.present_bytes, *others, 0), file.size_bytes)


@contextmanager
def _crew(download: Download) -> Iterator[list[Fetcher]]:
    """The threads of a download. At the end they are let go, and waited for only a moment: some may be stuck."""
    fetchers = [Fetcher(download) for _ in range(CONNECTIONS)]
    workers: list[Worker] = [*fetchers, *(Checker(download) for _ in range(min(os.cpu_count() or 1, CONNECTIONS)))]
    for worker in workers:
        worker.start()
    try:
        yield fetchers
    finally:
        download.end()
        for fetcher in fetchers:
            fetcher.abort()
        abandoned = {worker for worker in workers if isinstance(worker, Fetcher) and worker.abandoned}
        deadline_s = time.monotonic() + LAST_WORDS_S
        for worker in {*workers, *fetchers} - abandoned:
            worker.join(max(0.0, deadline_s - time.monotonic()))


def _watch(download: Download, fetchers: list[Fetcher], listener: Listener, total_bytes: int) -> None:
    """Tells the listener and keeps the threads going until every file is in its place. Raises what ends it."""
    already = total_bytes - sum(job.file.size_bytes for job in download.jobs)
    arriving, verifying = Meter(DOWNLOADING, total_bytes), Meter(VERIFYING, total_bytes)
    rate = RateWatch(download.timeouts.slow_s)
    while not download.done:
        ended = download.stop.wait(LOOK_S)
        _pass_on_notes(download, listener)
        current = next((job.file.name for job in download.jobs if not job.done), None)
        if (arrived := download.arrived_bytes + already) < total_bytes:
            listener.progress(arriving.look(arrived, current))
            _release_stalled(download, fetchers)
            if slow := rate.look(arrived, time.monotonic()):
                listener.note(Note("slow", slow))
                for fetcher in fetchers:
                    fetcher.abort()
            _check_patience(download)
        else:
            listener.progress(verifying.look(download.checked_bytes + already, current))
        if ended and download.failure is not None:
            raise download.failure
    _pass_on_notes(download, listener)


def _pass_on_notes(download: Download, listener: Listener) -> None:
    while not download.notes.empty():
        listener.note(download.notes.get())


def _release_stalled(download: Download, fetchers: list[Fetcher]) -> None:
    """Ends reads without a byte for `stall_s`; a thread that does not come back from that is replaced by a new one."""
    now = time.monotonic()
    for fetcher in list(fetchers):
        silent_s = now - max(fetcher.heard_s, download.paused_until_s)
        if fetcher.task is None or silent_s < download.timeouts.stall_s * (1 + fetcher.aborted):
            continue
        if not fetcher.aborted:
            fetcher.abort()
            continue
        fetchers.remove(fetcher)
        if (task := fetcher.abandon()) is not None:
            download.say("stalled", f"{task[0].file.name}: a connection stalls; opening another")
            download.requeue(*task)
        fetchers.append(Fetcher(download))
        fetchers[-1].start()


def _check_patience(download: Download) -> None:
    """Raises MscliError(DOWNLOAD_FAILED) when no connection has had a byte for `retry_s`."""
    retry_s = download.timeouts.retry_s
    if time.monotonic() - max(download.heard_s, download.paused_until_s) > retry_s:
        fault = download.last_fault or PassingFault("stalled_download", "no data")
        raise PassingFault(fault.cause, f"{fault.seen} (for {retry_s:g} s)").final(download.repository)
