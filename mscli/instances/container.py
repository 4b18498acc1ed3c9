"""An instance's container: which processes are in it, whether it is left behind, and its end.

The process that mscli knows by its identity is the container's client. Killed, it leaves the container running, which
is then found by the id that the client wrote down, or by its name.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mscli.engines.environment import Contained
from mscli.errors import Code, MscliError
from mscli.instances import process
from mscli.instances.process import Halt, Identity, wait_death

if TYPE_CHECKING:
    from mscli.engines.containers.client import Seen

_ID_LENGTH = 64
_REMOVAL_S = 20.0
_KILL_S = 10.0
_CLIENT_S = 3.0
_LATE_S = 2.0
_ASK_EVERY_S = 0.3


def remembered(raw: Mapping[str, Any]) -> Contained:
    """A container as a record's JSON data has it. Raises KeyError or TypeError where it has not."""
    client, env = raw["client"], raw["env"]
    return Contained(tuple(map(str, client)), dict(env), str(raw["name"]), Path(raw["cidfile"]), str(raw["image"]))


def pids(contained: Contained) -> tuple[int, ...]:
    """The living processes in the container, as this machine numbers them; empty where they cannot be seen.

    Their cgroup bears the container's id, for every user to read, whoever they belong to.
    """
    identity = _id(contained.cidfile)
    if identity is None:
        return ()
    inside = (int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _in_cgroup(entry, identity))
    return tuple(sorted(pid for pid in inside if (seen := process.stat(pid)) and seen.state not in "ZXx"))


def left(contained: Contained) -> bool:
    """True if the container is there, running or not, whatever became of its client. Asks its engine where no process
    of it can be seen; an engine that does not answer has none that runs on this machine."""
    if pids(contained):
        return True
    try:
        return _look(contained) is not None
    except MscliError:
        return False


def publishes(contained: Contained, port: int) -> bool:
    """True if the container runs and holds this port, by its engine's word."""
    if _id(contained.cidfile) is None:
        return False
    try:
        seen = _look(contained)
    except MscliError:
        return False
    return seen is not None and seen.running and port in seen.ports


def end(
    contained: Contained,
    client: Identity | None,
    mark: str,
    signals: Sequence[int],
    grace_s: float,
    listener: Callable[[str], None],
) -> Halt:
    """Stop the container and remove it: each of `signals` in turn, `grace_s` seconds after each, then SIGKILL; at last
    its `client`, with whatever carries the instance's `mark`. No process, container or unnamed volume is left.

    Its engine sends the signals, since the processes may be root's; without an engine that answers, this process does.
    Raises STOP_FAILED when the container cannot be removed.
    """
    begun, last = time.monotonic(), None
    known = _id(contained.cidfile) is not None
    for number in (*signals, signal.SIGKILL):
        if not _lives(contained):
            break
        last = signal.Signals(number).name
        listener(f"sending {last} to the container {contained.name}")
        _send(contained, number)
        _send(contained, signal.SIGCONT)  # a stopped process keeps every signal but SIGKILL waiting
        _wait(lambda: not _lives(contained), _KILL_S if number == signal.SIGKILL else grace_s, contained)
    # The client is ended last: it forwards what it is sent, and gives back the container's exit status.
    _wait(lambda: not (client and process.alive(client)), _CLIENT_S if last else 0.0, contained)
    ended = process.halt(client, mark, (signal.SIGTERM,), _CLIENT_S)
    _remove(contained, late_s=0.0 if known else _LATE_S)
    survivors = tuple(sorted({*pids(contained), *ended.survivors}))
    return Halt(last or ended.signal, time.monotonic() - begun, survivors)


def _id(cidfile: Path) -> str | None:
    """The container's id, once its client has written it down."""
    try:
        text = cidfile.read_text().strip()
    except OSError:
        return None
    return text if len(text) == _ID_LENGTH else None


def _in_cgroup(pid: str, identity: str) -> bool:
    try:
        return identity.encode() in Path(f"/proc/{pid}/cgroup").read_bytes()
    except OSError:
        return False


def _look(contained: Contained) -> Seen | None:
    from mscli.engines.containers.client import client_of, look

    return look(client_of(contained), _id(contained.cidfile) or contained.name)


def _lives(contained: Contained) -> bool:
    if pids(contained):
        return True
    try:
        seen = _look(contained)
    except MscliError:
        return False
    return seen is not None and seen.running


def _send(contained: Contained, number: int) -> None:
    """Signal the container's first process through its engine, else all of them directly."""
    from mscli.engines.containers.client import call, client_of

    name = signal.Signals(number).name
    said = call(client_of(contained), "kill", "--signal", name, _id(contained.cidfile) or contained.name)
    if said.status != 0:
        for pid in pids(contained):
            try:
                process.send([pid], number)
            except PermissionError:
                continue


def _wait(done: Callable[[], bool], timeout_s: float, contained: Contained) -> None:
    """Wait until `done`, waking when a process of the container dies."""
    deadline = time.monotonic() + timeout_s
    while not done() and (left_s := deadline - time.monotonic()) > 0:
        inside = pids(contained)
        if inside:
            wait_death(inside[0], min(left_s, _ASK_EVERY_S))
        else:
            time.sleep(min(left_s, 0.1))


def _remove(contained: Contained, late_s: float) -> None:
    """Remove the container if it is still there, and wait until it is gone.

    `late_s`: how long to look for one that its client asked for and did not live to see.
    """
    from mscli.engines.containers.client import call, client_of, last_line

    client, begun, said = client_of(contained), time.monotonic(), ""
    while True:
        try:
            there = _look(contained) is not None
        except MscliError as fault:
            if not pids(contained):
                return  # its engine is not running, and removes it when it starts
            raise MscliError(Code.STOP_FAILED, fault.message, fault.hint, {"container": contained.name}) from fault
        waited = time.monotonic() - begun
        if there:
            said = call(client, "rm", "--force", "--volumes", contained.name).text
            late_s = 0.0
        elif waited >= late_s:
            return
        if waited > _REMOVAL_S:
            raise MscliError(
                Code.STOP_FAILED,
                f"the container {contained.name} cannot be removed: {last_line(said)}",
                f"Look at it: {client.argv[0]} inspect {contained.name}",
                {"container": contained.name},
            )
        time.sleep(0.1)
