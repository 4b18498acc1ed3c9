"""A download under way: parts still to fetch, the threads that fetch and check them, and what went wrong so far.

Libraries that block cannot be stopped from outside, so every wait belongs to a thread that the caller's watchdog can
release (`Fetcher.abort`) or give up on. Threads are daemons: an interrupted process ends at once, and the unfinished
files keep every byte that was written. A child process would allow no more than that, and costs 0.3 s to start.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from mscli.errors import Code, MscliError
from mscli.weights.fault import PassingFault, Timeouts, WrongAnswerFault
from mscli.weights.hub import Location
from mscli.weights.listing import RemoteFile, digest, expected
from mscli.weights.partial import Partial
from mscli.weights.progress import Note
from mscli.weights.ranges import BLOCK_BYTES, HttpRanges, LocalRanges, Ranges, XetRanges, xet_usable

CONNECTIONS = 8
XET_FAULTS_ALLOWED = 2
WRONG_ANSWERS_ALLOWED = 3
LONGEST_PAUSE_S = 10.0
SAY_AGAIN_S = 20.0
POLL_S = 0.02


@dataclass
class Job:
    """One file to fetch and check. `corrupt`: how often all its bytes had arrived and were wrong."""

    file: RemoteFile
    partial: Partial
    location: Location | None = None
    checked_bytes: int = 0
    corrupt: int = 0
    done: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Download:
    """Shared by the threads of one download; all attributes may be read by any of them.

    `locate` asks where a file's bytes lie; `finished` is told of each file that is whole, checked and in its place.
    """

    def __init__(
        self,
        repository: str,
        jobs: Sequence[Job],
        locate: Callable[[RemoteFile], Location],
        finished: Callable[[RemoteFile], Path],
        timeouts: Timeouts,
    ) -> None:
        self.repository, self.jobs, self.timeouts = repository, tuple(jobs), timeouts
        self.locate, self.finished = locate, finished
        self.notes: SimpleQueue[Note] = SimpleQueue()
        self.stop = threading.Event()
        self.failure: MscliError | None = None
        self.last_fault: PassingFault | None = None
        self.heard_s = time.monotonic()
        self.paused_until_s = 0.0
        self.xet_faults = 0 if xet_usable() else XET_FAULTS_ALLOWED
        self._said_s: dict[str, float] = {}
        self._parts: deque[tuple[Job, int]] = deque()
        self._unchecked = deque(self.jobs)
        self._changed = threading.Condition()
        for job in self.jobs:
            self.queue(job)

    @property
    def arrived_bytes(self) -> int:
        """Bytes on disk."""
        return sum(job.partial.arrived_bytes for job in self.jobs)

    @property
    def checked_bytes(self) -> int:
        """Bytes whose digest has been computed."""
        return sum(job.checked_bytes for job in self.jobs)

    @property
    def done(self) -> bool:
        """Every file is in its place."""
        return all(job.done for job in self.jobs)

    def queue(self, job: Job) -> None:
        """Puts every part that `job` lacks in the queue."""
        with self._changed:
            self._parts.extend((job, gap.part) for gap in job.partial.gaps())
            self._changed.notify_all()

    def requeue(self, job: Job, part: int) -> None:
        """Puts one part back, to be fetched next."""
        with self._changed:
            self._parts.appendleft((job, part))
            self._changed.notify_all()

    def next_part(self) -> tuple[Job, int] | None:
        """The next part to fetch; waits while other parts are under way, None when all is done or stopped."""
        with self._changed:
            while not self._parts and not self.stop.is_set() and not self.done:
                self._changed.wait(LONGEST_PAUSE_S)
            return None if self.stop.is_set() or not self._parts else self._parts.popleft()

    def next_unchecked(self) -> Job | None:
        """The next file to check, None when each has its checker."""
        with self._changed:
            return self._unchecked.popleft() if self._unchecked else None

    def settle(self, job: Job) -> None:
        """Marks `job` as done; the last one ends the download."""
        job.done = True
        if self.done:
            self.end()

    def fail(self, error: MscliError) -> None:
        """Ends the download with `error`; the first one counts."""
        self.failure = self.failure or error
        self.end()

    def end(self) -> None:
        """Lets every thread go."""
        self.stop.set()
        with self._changed:
            self._changed.notify_all()

    def note_fault(self, fault: PassingFault, tries: int, *, by_xet: bool) -> float:
        """Takes note of a fault and returns how long to pause before the next try, in seconds."""
        self.last_fault = fault
        if by_xet:
            self.note_xet_fault(fault.seen)
        if fault.wait_s is not None:
            return self._note_pause(fault, fault.wait_s)
        self.say("stalled" if fault.cause == "stalled_download" else "retrying", f"{fault.seen}; retrying")
        return min(0.2 * 2.0**tries, LONGEST_PAUSE_S)

    def say(self, code: str, message: str) -> None:
        """Queues a note for the listener; what several connections meet at once is said once."""
        now = time.monotonic()
        if now - self._said_s.get(code, -SAY_AGAIN_S) >= SAY_AGAIN_S:
            self._said_s[code] = now
            self.notes.put(Note(code, message))

    def note_xet_fault(self, seen: str) -> None:
        """Counts a fault of Xet storage; from the last one allowed on, everything comes over plain HTTP."""
        self.xet_faults += 1
        if self.xet_faults == XET_FAULTS_ALLOWED:
            self.say("plain_http", f"{seen}; switching to plain HTTP, nothing is lost")

    def _note_pause(self, fault: PassingFault, wait_s: float) -> float:
        if wait_s > self.timeouts.retry_s:
            raise fault.final(self.repository)
        now = time.monotonic()
        self.say("rate_limit", f"{fault.seen}; waiting {wait_s:.0f} s (Retry-After)")
        self.paused_until_s = max(self.paused_until_s, now + wait_s)
        return wait_s


class Worker(threading.Thread):
    """A thread of a download. What it raises ends the download, faults of the program included."""

    def __init__(self, download: Download, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.download = download

    def work(self) -> None:
        """What the thread does."""
        raise NotImplementedError

    def run(self) -> None:
        """Works, and tells the download how it ended."""
        ended = False
        try:
            self.work()
            ended = True
        except MscliError as error:
            self.download.fail(error)
            ended = True
        finally:
            if not ended:
                self.download.fail(MscliError(Code.INTERNAL, f"a {self.name} thread of the download died"))


class Fetcher(Worker):
    """Fetches parts until there are none.

    `heard_s`: when it last had a byte or began a try. `aborted`: times the watchdog ended its read since then.
    """

    def __init__(self, download: Download) -> None:
        super().__init__(download, "fetch")
        self.task: tuple[Job, int] | None = None
        self.heard_s = time.monotonic()
        self.aborted = 0
        self.abandoned = False
        self._local, self._xet, self._http = LocalRanges(), XetRanges(), HttpRanges(download.timeouts)
        self._reader: Ranges = self._http

    def work(self) -> None:
        """Takes part after part."""
        while not self.abandoned and (task := self.download.next_part()) is not None:
            self._hear()
            self.task = task
            self._fetch(*task)
            self.task = None

    def abort(self) -> None:
        """Ends a blocked read; called by the watchdog."""
        self.aborted += 1
        self._reader.abort()

    def abandon(self) -> tuple[Job, int] | None:
        """Gives the thread up: whatever it still reads is dropped. Returns the part it had."""
        self.abandoned = True
        if self._reader is self._xet:
            self.download.note_xet_fault("Xet storage does not respond")
        return self.task

    def _hear(self) -> None:
        self.heard_s, self.aborted = time.monotonic(), 0

    def _fetch(self, job: Job, part: int) -> None:
        tries = 0
        while job.partial.gap(part) is not None and not self._released():
            before = job.partial.gap(part)
            try:
                self._pause(max(0.0, self.download.paused_until_s - time.monotonic()))  # asked of another connection
                self._read(job, part, self._locate(job))
            except PassingFault as fault:
                tries = tries + 1 if job.partial.gap(part) == before else 1
                job.location = None
                if isinstance(fault, WrongAnswerFault) and tries >= WRONG_ANSWERS_ALLOWED:
                    raise fault.final(self.download.repository) from fault
                pause_s = self.download.note_fault(fault, tries, by_xet=self._reader is self._xet)
                self._pause(pause_s)

    def _pause(self, pause_s: float) -> None:
        self.heard_s = time.monotonic() + pause_s  # a pause is no stall
        self.download.stop.wait(pause_s)

    def _locate(self, job: Job) -> Location:
        with job.lock:
            if job.location is None:
                job.location = self.download.locate(job.file)
            location = job.location
        by_xet = location.xet is not None and self.download.xet_faults < XET_FAULTS_ALLOWED
        self._reader = self._local if location.url.startswith("file:") else self._xet if by_xet else self._http
        return location

    def _read(self, job: Job, part: int, location: Location) -> None:
        self._hear()  # the clock starts with the request, not with the look-up before it
        gap = job.partial.gap(part)
        stalled = PassingFault("stalled_download", f"{job.file.name}: no data for {self.download.timeouts.stall_s:g} s")
        try:
            for data in self._reader.read(location, gap, job.file.size_bytes) if gap else ():
                if self.abandoned:
                    return
                gap = job.partial.write(gap, data) if gap else None
                if self.download.stop.is_set():
                    return  # after the write: an interrupt keeps what has come
                self._hear()
                self.download.heard_s = self.heard_s
        except PassingFault as fault:
            raise (stalled if self.aborted else fault) from fault
        if gap is not None:
            raise stalled

    def _released(self) -> bool:
        return self.abandoned or self.download.stop.is_set()


class Checker(Worker):
    """Computes digests right behind the download, one file after the other, and puts good files in their place."""

    def __init__(self, download: Download) -> None:
        super().__init__(download, "check")

    def work(self) -> None:
        """Takes file after file."""
        while (job := self.download.next_unchecked()) is not None:
            while not job.done and not self.download.stop.is_set():
                self._check(job)

    def _check(self, job: Job) -> None:
        found, buffer = digest(job.file), memoryview(bytearray(BLOCK_BYTES))
        job.checked_bytes = 0
        while job.checked_bytes < job.file.size_bytes:
            ready = job.partial.whole_prefix() - job.checked_bytes
            if not ready and self.download.stop.wait(POLL_S):
                return
            count = job.partial.read(buffer[:ready], job.checked_bytes)
            found.update(buffer[:count])
            job.checked_bytes += count
        if found.hexdigest() != expected(job.file):
            self._reject(job)
            return
        job.partial.finish()
        self.download.finished(job.file)
        self.download.settle(job)

    def _reject(self, job: Job) -> None:
        job.partial.restart()
        if job.location is not None and job.location.url.startswith("file:"):
            message = f"the copy of {job.file.name} in the cache of {self.download.repository} is damaged"
            hint = "fix it: mscli pull --verify"
            raise MscliError(Code.WEIGHTS_MISSING, message, hint, {"cause": "corrupt_weights"})
        job.corrupt += 1
        seen = f"{job.file.name} does not have the hash that the hub lists"
        if job.corrupt > 1:
            raise PassingFault("corrupt_download", f"{seen}, twice").final(self.download.repository)
        self.download.notes.put(Note("corrupt", f"{seen}; downloading it again"))
        job.location = None
        self.download.queue(job)
