"""Pulling through an Ollama server: the server fetches and keeps the bytes, mscli asks, watches and asks again.

The server writes a blob in parts, each with a note of how far it is, and goes on from there whoever asks next. The
note is written when a part ends or is given up: what a server that is killed had of its running parts is fetched again.

While a download stands still the server goes on reporting, and every 31 s it begins a part that gets no bytes at 0
again, for ever. So a stall is told neither by silence nor by growth, but by a count that does not pass the highest of
this request; and only what passes the highest ever is a gain, for which a failure is forgiven.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.inventory.host import free_bytes
from mscli.weights.fault import PassingFault, Timeouts, disk_full
from mscli.weights.progress import DONE, DOWNLOADING, VERIFYING, Listener, Meter, Note, RateWatch, WeightFiles

if TYPE_CHECKING:
    from collections.abc import Generator

    from ollama import Client, ProgressResponse

# The server starts a stalled part anew after 30 s by itself: only then is it asked anew.
OLLAMA_TIMEOUTS = Timeouts(connect_s=10.0, stall_s=60.0, retry_s=300.0)
# Checking a blob's hash says nothing until it is done: 50 GB from a slow disk.
SILENCE_TIMEOUT_S = 1800.0
LOOK_S = 0.2
PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
# How often a registry that answers and refuses for the moment is asked, while nothing has come yet.
ATTEMPTS = 6
# When its client has gone, the server notes how far each part is; who interrupts a pull may stop the server next.
SETTLE_S = 0.5
# The server's first word on a blob comes after 60 ms: more than this share of the whole was there before.
RESUMED_SHARE = 0.05
# A server that refuses connections may be restarting: systemd does so after 3 s.
REFUSED_S = 10.0
# Causes that asking again may get rid of: the server goes on from where it stopped.
_PASSING = ("network_proxy", "corrupt_download", "stalled_download")
# A registry, or a proxy before it, that refuses for the moment: the server itself asks it only once.
_BUSY = re.compile(r"(?:^|pull model manifest: )(?:429|50[0234]):|context deadline exceeded|\btls: |TLS handshake")
_CODES: Mapping[str, Code] = {
    "disk_full": Code.DISK_FULL,
    "permissions": Code.FILE,
    "version_backend_old": Code.ENGINE_UNSUPPORTED,
}
_REMEDIES: Mapping[str, str] = {
    "stalled_download": "Run the same command again: it resumes where it stopped. If it stalls again, restart the "
    "server first.",
    "ollama_not_running": "See whether it runs: `mscli status`, `systemctl status ollama`.",
    "network_proxy": "Run the same command again: it resumes where it stopped.",
}
_LATER = "The registry, or a proxy in front of it, refuses the request for now: run the same command again later."
_LOG = "The server's log may say more: `journalctl -u ollama -n 50`."


@frozen
class Order:
    """What to pull through which server. `direct`: no proxy between mscli and the server.

    `size_bytes`: what the catalogue says it takes. `folder`: where the server keeps its models, None if that cannot be
    told (another machine, a container): then its disk is not looked at.
    """

    url: str
    direct: bool
    tag: str
    size_bytes: int
    folder: Path | None


def pull(order: Order, listener: Listener, timeouts: Timeouts = OLLAMA_TIMEOUTS) -> WeightFiles:
    """Have the server pull the tag, unless it has it; returns when it is whole and checked there.

    Interrupted or killed, the server notes what has arrived, and the next call goes on from there. Raises MscliError
    with DOWNLOAD_FAILED, DISK_FULL, ENGINE_UNSUPPORTED or FILE; details["cause"] is one of model_not_found,
    network_proxy, corrupt_download, disk_full, version_backend_old, stalled_download, permissions, hf_gated,
    hf_rate_limit, ollama_not_running, unknown.
    """
    import httpx
    from ollama import Client

    patience = httpx.Timeout(SILENCE_TIMEOUT_S, connect=timeouts.connect_s)
    with Client(order.url, timeout=patience, trust_env=not order.direct) as client:
        if (size := _present(client, order)) is None:
            check_disk(order)
            _Attempts(client, order, listener, timeouts).run()
            size = _present(client, order)
    if size is None:
        raise final(PassingFault("unknown", "the server reports the model but does not list it"), order.tag)
    return WeightFiles(order.tag, None, size)


def check_disk(order: Order) -> None:
    """Raises MscliError(DISK_FULL) when the server's folder has no room for what is still missing.

    What unfinished blobs take already counts as room: most of it is this one's.
    """
    folder = order.folder
    if folder is None:
        return
    try:
        free = free_bytes(folder)
        partial = sum(path.stat().st_blocks * 512 for path in (folder / "blobs").glob("sha256-*-partial"))
    except PermissionError:
        return  # another user's folder that does not even show itself: the server will tell
    if order.size_bytes > free + partial:
        full = disk_full(folder, order.size_bytes - partial, free, order.tag)
        hint = "Remove models that are no longer used (`ollama list`, `ollama rm NAME`), or move the folder: set "
        raise MscliError(full.code, full.message, f"{hint}OLLAMA_MODELS for the server and restart it.", full.details)


def _present(client: Client, order: Order) -> int | None:
    """Bytes of the tag on the server, None if it has it not."""
    import httpx
    from ollama import ResponseError

    try:
        listed = client.list().models
    except (ConnectionError, httpx.TransportError, ResponseError, ValueError) as error:
        raise final(fault(error, order.tag), order.tag) from error
    wanted = order.tag.lower() if ":" in order.tag.rpartition("/")[2] else f"{order.tag.lower()}:latest"
    return next((int(model.size or 0) for model in listed if (model.model or "").lower() == wanted), None)


class _Attempts:
    """One pull, asked for again and again as long as bytes keep coming."""

    def __init__(self, client: Client, order: Order, listener: Listener, timeouts: Timeouts) -> None:
        self._client, self._order, self._listener, self._timeouts = client, order, listener, timeouts
        self._layers: dict[str, tuple[int, int]] = {}  # of each blob: most bytes ever reported, and all
        self._highest: dict[str, int] = {}  # the same of this request alone: a server that was killed loses some
        self._meter = Meter(DOWNLOADING, order.size_bytes)
        self._rate = RateWatch(timeouts.slow_s)
        self._heard_s = self._gained_s = time.monotonic()
        self._looked_s = 0.0
        self._gained = False
        self._failures = self._mismatches = 0

    def run(self) -> None:
        """Waits for the whole pull. Raises what ends it."""
        while True:
            try:
                if self._tried():
                    break
            except (KeyboardInterrupt, MscliError):  # somebody stops it, here or with `mscli down`
                time.sleep(SETTLE_S)
                raise
        self._listener.progress(Meter(DONE, self._meter.total_bytes).look(self._meter.total_bytes))

    def _tried(self) -> bool:
        """Ask once; False after a fault that may pass. Raises what ends it."""
        try:
            self._once()
        except PassingFault as passing:
            self._again(passing)
            return False
        return True

    def _once(self) -> None:
        """One request. Raises PassingFault when it ends before the server says that everything is there."""
        import httpx
        from ollama import ResponseError

        self._heard_s, self._highest = time.monotonic(), {}
        stream = cast("Generator[ProgressResponse, None, None]", self._client.pull(self._order.tag, stream=True))
        status = None
        try:
            with closing(stream) as answers:
                for answer in answers:
                    status = answer.status
                    self._take(answer)
        except (ConnectionError, httpx.TransportError, ResponseError, ValueError) as error:
            raise fault(error, self._order.tag) from error
        if status != "success":
            raise PassingFault("network_proxy", "the server's answer was cut off")

    def _take(self, answer: ProgressResponse) -> None:
        now = time.monotonic()
        if answer.digest and answer.total:
            self._layer(answer.digest, answer.completed or 0, answer.total, now)
        else:
            self._heard_s = now  # the manifest, the check of a hash: they take as long as they take
            if (answer.status or "").startswith("verifying"):
                self._listener.progress(Meter(VERIFYING, self._meter.total_bytes).look(self._done_bytes()))
        if now - self._heard_s > self._timeouts.stall_s:
            blob = f" of {answer.digest[7:19]}" if answer.digest else ""
            raise PassingFault("stalled_download", f"no byte{blob} has come for {self._timeouts.stall_s:g} s")

    def _layer(self, digest: str, completed: int, total: int, now: float) -> None:
        known = self._layers.get(digest)
        if known is None and RESUMED_SHARE * self._order.size_bytes < completed < total:
            self._note("resumed", f"resuming {digest[7:19]} at {completed / 2**20:,.2f} MiB")
        if completed > self._highest.get(digest, -1):
            self._heard_s, self._highest[digest] = now, completed
        if known is not None and completed > known[0]:
            self._gained, self._gained_s, self._failures = True, now, 0
        self._layers[digest] = (max(completed, known[0] if known else 0), total)
        self._meter.total_bytes = max(self._order.size_bytes, sum(size for _, size in self._layers.values()))
        if now - self._looked_s >= LOOK_S:
            self._looked_s = now
            self._listener.progress(self._meter.look(self._done_bytes(), f"{self._order.tag} {digest[7:19]}"))
            if slow := self._rate.look(self._done_bytes(), now):
                raise PassingFault("stalled_download", slow)

    def _done_bytes(self) -> int:
        return sum(done for done, _ in self._layers.values())

    def _again(self, passing: PassingFault) -> None:
        """Pause and let it be tried again, or raise what the user is told when that has no prospect."""
        self._failures += 1
        still_s = time.monotonic() - self._gained_s
        if passing.cause == "corrupt_download":
            self._mismatches += 1
            self._layers.clear()
            hopeless = self._mismatches > 1
        elif passing.cause == "ollama_not_running":
            hopeless = still_s > REFUSED_S
        else:
            hopeless = self._failures > 1 and still_s > self._timeouts.retry_s
            if not self._gained and passing.cause != "stalled_download":
                # A network that has let nothing through yet is not waited for: the user is there to mend it.
                hopeless |= self._failures >= (ATTEMPTS if isinstance(passing, _Said) and passing.busy else 1)
        if hopeless:
            raise final(passing, self._order.tag)
        code = {"corrupt_download": "corrupt", "stalled_download": "stalled"}.get(passing.cause, "retrying")
        self._note(code, f"{passing.seen}; asking the server again")
        first_s = min(PAUSE_S, self._timeouts.stall_s / 10)
        time.sleep(min(first_s * 2 ** (self._failures - 1), LONGEST_PAUSE_S))

    def _note(self, code: str, message: str) -> None:
        self._listener.note(Note(code, message))


def fault(error: Exception, tag: str) -> PassingFault:
    """What an exception of the ollama package or of httpx below it stands for. Raises MscliError if it will not pass.

    `error` is a ResponseError (the server's words), a transport error, or a ValueError (no Ollama at the other end).
    """
    import httpx
    from ollama import ResponseError

    if isinstance(error, ResponseError):
        from mscli.diagnosis.diagnose import start_failure  # reads the signatures; only an error needs it

        found = start_failure(error.error, "ollama", None)
        words = f"the server says: {' '.join(error.error.split())}"
        if _BUSY.search(error.error):
            known = found.code != "unknown"
            return _Said(found.code if known else "network_proxy", words, found.remedy if known else _LATER, busy=True)
        if found.code not in _PASSING:
            raise _error(found.code, words, tag, found.remedy if found.code != "unknown" else _LOG)
        return _Said(found.code, words, found.remedy)
    if isinstance(error, (httpx.ConnectError, ConnectionError)):
        return PassingFault("ollama_not_running", "no Ollama server answers")
    if isinstance(error, httpx.TransportError):
        return PassingFault("network_proxy", f"the connection to the server broke ({error or type(error).__name__})")
    return PassingFault("network_proxy", "a program that is not Ollama answers")


def final(passing: PassingFault, tag: str) -> MscliError:
    """The error for the user once asking again has not helped."""
    remedy = passing.remedy if isinstance(passing, _Said) else _REMEDIES.get(passing.cause, _LOG)
    return _error(passing.cause, passing.seen, tag, remedy)


class _Said(PassingFault):
    """A passing fault in the server's words, with the remedy that belongs to them. `busy`: worth a few more tries even
    where nothing has come yet."""

    def __init__(self, cause: str, seen: str, remedy: str, busy: bool = False) -> None:
        super().__init__(cause, seen)
        self.remedy = remedy
        self.busy = busy


def _error(code: str, seen: str, tag: str, remedy: str) -> MscliError:
    details = {"cause": code, "model": tag}
    return MscliError(_CODES.get(code, Code.DOWNLOAD_FAILED), f"Could not pull {tag}: {seen}.", remedy, details)
