"""Stopping an instance: every process of it, then its port and its GPU memory, and a word on what is left."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

from mscli.engines.engine import Engine, Hosted
from mscli.engines.table import engine as engine_named
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace
from mscli.instances import container as containers
from mscli.instances.fetching import Fetching, fetching, stop_fetching, stop_mscli
from mscli.instances.orphans import Marked, end, marked
from mscli.instances.process import Halt, alive, describe, halt
from mscli.instances.records import Record, Records, group, running
from mscli.instances.state import probe
from mscli.instances.store import Store, Unreadable
from mscli.inventory.inventory import total_bytes
from mscli.lifecycle import port as ports

Listener = Callable[[str], None]
_MEMORY_TIMEOUT_S = 60.0
_PORT_TIMEOUT_S = 10.0
_UNKNOWN_GRACE_S = 10.0


@frozen
class Stopped:
    """How an instance ended. `signal`: the last one needed, None if nothing lived. `survivors`: pids still alive.

    `memory_returned_bytes`: what its processes held on its GPUs and no longer do; None where no GPU was used or the
    driver does not tell. `memory_seconds`: how long that took after the processes were gone. `fetching`: it was a start
    that still fetched its weights.
    """

    name: str
    signal: str | None
    seconds: float
    survivors: tuple[int, ...]
    port_free: bool
    memory_returned_bytes: int | None
    memory_seconds: float
    fetching: bool = False


def stop(
    record: Record, records: Records, listener: Listener = lambda _: None, purge: bool = False, force: bool = False
) -> Stopped:
    """Stop everything of an instance and wait until its port and GPU memory are back.

    Sends the engine's signals, each with its grace, then SIGKILL; waits at most 10 s more for the port and 60 s for
    the memory. A server that is not ours only gives our model back (and loses it when `purge`); one that does not
    answer raises STOP_FAILED, unless `force`. The record stays, marked as stopped, when nothing survived and no other
    start has taken the name meanwhile.
    """
    engine = engine_named(record.plan.engine)
    _note_stopping(record, records)
    for each in fetching(records, record.name):
        stop_fetching(each, records, listener)
    if record.owner is not None and record.starter and not records.was_ready(record.name):
        stop_mscli(record.starter)  # a server gives up a load whose client leaves, and no other way
    pids = group(record)
    before = _held(record, pids) if pids else None
    release(engine, record, purge, listener, told=not force)
    ended = end_group(engine, record, listener)
    port_free = record.owner is not None or _wait(lambda: not _ours_listens(record, ended), _PORT_TIMEOUT_S)
    begun = time.monotonic()
    left = _wait_memory(record, pids, before, listener)
    if not ended.survivors:
        _note_stopped(record, records)
    return Stopped(
        name=record.name,
        signal=ended.signal,
        seconds=ended.seconds,
        survivors=ended.survivors,
        port_free=port_free,
        memory_returned_bytes=None if before is None or left is None else before - left,
        memory_seconds=time.monotonic() - begun,
    )


def stop_start(found: Fetching, store: Store, listener: Listener = lambda _: None) -> Stopped:
    """Stop a start that still fetches its weights, and so has no record. Waits at most 13 s."""
    begun = time.monotonic()
    sent = stop_fetching(found, store, listener)
    left = (found.by.pid,) if alive(found.by) else ()
    return Stopped(found.name, sent, time.monotonic() - begun, left, True, None, 0.0, fetching=True)


def stop_unreadable(damaged: Unreadable, records: Records, listener: Listener = lambda _: None) -> Stopped:
    """Stop whatever lives of an instance whose record cannot be read: this user's processes that carry its mark.

    Its record stays as it is. Waits at most 10 s after each of two signals, and 5 s after SIGKILL.
    """
    begun, sent = time.monotonic(), []

    def find() -> tuple[Marked, ...]:
        return tuple(each for each in marked(records.folder) if each.name == damaged.name)

    def heard(text: str) -> None:
        sent.append(text.split()[1])
        listener(text)

    left = end(find, (signal.SIGINT, signal.SIGTERM), _UNKNOWN_GRACE_S, heard)
    survivors = tuple(each.who.pid for each in left)
    last = sent[-1] if sent else None
    return Stopped(damaged.name, last, time.monotonic() - begun, survivors, not survivors, None, 0.0)


def survived(left: Collection[Stopped]) -> MscliError:
    """The error for instances of which something lives on after SIGKILL."""
    pids = [pid for item in left for pid in item.survivors]
    return MscliError(
        Code.STOP_FAILED,
        f"still alive after SIGKILL: {'; '.join(map(describe, pids))}",
        "A process in uninterruptible sleep waits for the driver or a disk: see dmesg. It may need a restart.",
        {"survivors": pids},
    )


def _note_stopping(record: Record, records: Records) -> None:
    """Best before the first signal; an instance is stopped all the same where the lock cannot be had."""
    with contextlib.suppress(MscliError), records.still(record) as now:
        if now is not None:
            records.mark_stopping(record.name)


def _note_stopped(record: Record, records: Records) -> None:
    with records.still(record) as now:
        if now is None:
            return
        try:
            records.save(replace(now, stopped_at=time.time()))
        except MscliError:
            if not records.is_stopping(record.name):
                raise
            records.tidy(record.name, recorded=False)
        else:
            records.tidy(record.name)


def purge(record: Record, records: Records) -> None:
    """Remove everything that is kept of a stopped instance, unless another start has taken the name meanwhile."""
    with records.still(record) as now:
        if now is not None and not running(now):
            records.purge(record.name)


def release(
    engine: Engine, record: Record, purge: bool, listener: Listener = lambda _: None, told: bool = False
) -> None:
    """Have a server that is not ours give our model back, as long as it answers; one of the instance's own ends.

    `told`: raise STOP_FAILED for one that is there and does not answer, since the model may be in its memory.
    """
    if not isinstance(engine, Hosted) or record.identity is not None:
        return
    seen = probe(record.host, record.port, record.health_path)
    if seen.status == 200:
        engine.release((record.host, record.port), record.alias, purge, listener)
    elif told and record.owner is not None and seen.reason != "refused":
        raise MscliError(
            Code.STOP_FAILED,
            f"the server does not answer ({record.owner}, {record.host}:{record.port}): {record.alias} may still be in "
            "its memory",
            f"Try again once it answers. To remove the record anyway: mscli down {record.name} --force",
            {"instance": record.name},
        )


def end_group(engine: Engine, record: Record, listener: Listener = lambda _: None) -> Halt:
    """Stop the instance's processes with the engine's signals, or its container; nothing where the server is not ours.

    Raises STOP_FAILED for a container whose engine does not remove it.
    """
    if record.owner is not None:
        return Halt(None, 0.0, ())
    if record.contained is not None:
        return containers.end(
            record.contained, record.identity, record.mark, engine.stop_signals, engine.stop_grace_s, listener
        )
    return halt(record.identity, record.mark, engine.stop_signals, engine.stop_grace_s, listener)


def _ours_listens(record: Record, ended: Halt) -> bool:
    if not ports.listening(record.port):
        return False
    holder = ports.owner(record.port)
    return holder is None or holder in ended.survivors


def _wait(done: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _wait_memory(record: Record, pids: Collection[int], before: int | None, listener: Listener) -> int | None:
    """Wait until none of `pids` holds memory on the instance's GPUs; what they still hold at the end."""
    if not before:
        return before
    left: int | None = before

    def returned() -> bool:
        nonlocal left
        left = _held(record, pids)
        return not left

    listener("waiting for the GPU memory to be freed")
    _wait(returned, _MEMORY_TIMEOUT_S)
    return left


def _held(record: Record, pids: Collection[int]) -> int | None:
    """Bytes that `pids` hold on the instance's GPUs, by NVML; None without GPUs or where the driver does not tell."""
    if not record.plan.devices:
        return None
    from mscli.inventory.detect import detect  # pynvml is only worth its import where GPUs were used

    return total_bytes(detect(Path("/")).holders(pids, record.plan.devices))
