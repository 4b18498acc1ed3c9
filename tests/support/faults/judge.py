"""What must hold of every command, and of a home after a round of faults: found by looking at files and processes.

Nothing here asks mscli's own modules: what they get wrong must not be got wrong here too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.faults.commands import OUTSIDE, Command

if TYPE_CHECKING:
    from support.faults.rounds import Round

EXITS = (0, 1, 2, 3, 4, 5, 130)
# The exit code of each error code; 1 for all others.
_EXIT_OF = {"usage": 2, "profile_unknown": 2, "no_gpu": 4, "no_fit": 4, "not_running": 3, "interrupted": 130}
_FINDS = {"status": 3, "check": 5, "doctor": 5}
_STATES_OF_THE_LIVING = {"starting", "ready", "unloaded", "unresponsive"}
_SETTLE_S = 10.0
_MARK, _HOME = b"MSCLI_INSTANCE=", b"MSCLI_HOME="


@dataclass(frozen=True)
class Wrong:
    """One thing that is not as it must be. `kind`: one of a few words, by which rounds are counted."""

    kind: str
    what: str


@dataclass(frozen=True)
class Process:
    """A living process of an instance."""

    pid: int
    mark: str
    state: str

    @property
    def name(self) -> str:
        return self.mark.rpartition(":")[0]


@dataclass(frozen=True)
class Home:
    """A user's home, as the kernel and the disk show it."""

    folder: Path

    @property
    def instances(self) -> Path:
        return self.folder / "home" / "state" / "instances"

    def living(self) -> tuple[Process, ...]:
        """Every living process of an instance of this home, whether or not a record knows it."""
        return tuple(self._living())

    def _living(self) -> Iterator[Process]:
        home = _HOME + os.fsencode(self.folder / "home")
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                words = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
                state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            mark = next((word for word in words if word.startswith(_MARK)), None)
            if mark and home in words and state not in "ZX":
                yield Process(int(entry), mark[len(_MARK) :].decode(), state)

    def kill_all(self) -> None:
        """End whatever lives, at once."""
        while living := self.living():
            for process in living:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.01)

    def record(self, name: str) -> dict[str, Any] | None:
        """The record of an instance, where there is one that can be read."""
        try:
            found = json.loads((self.instances / name / "record.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) and found.get("name") == name and found.get("plan") else None

    def rewrite(self, name: str, record: dict[str, Any]) -> None:
        """Replace a record, whole."""
        fresh = self.folder / "tmp" / "record"
        fresh.write_text(json.dumps(record))
        fresh.replace(self.instances / name / "record.json")

    def answers(self, port: int) -> bool:
        """Whether a health check of the port is answered with 200."""
        try:
            with socket.create_connection(("127.0.0.1", port), 1.0) as link:
                link.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                return link.recv(64).split()[1:2] == [b"200"]
        except OSError:
            return False

    def expected(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Of each readable record: ready, living, dead or stopped; and the living processes of its start."""
        found = {}
        living = self.living()
        for folder in sorted(self.instances.iterdir()) if self.instances.is_dir() else ():
            if record := self.record(folder.name):
                found[folder.name] = self._expected(record, living)
        return found

    def _expected(self, record: dict[str, Any], living: Sequence[Process]) -> tuple[str, tuple[int, ...]]:
        group = tuple(process.pid for process in living if process.mark == record["mark"])
        if record["stopped_at"] is not None:
            return "stopped", group
        if not record["identity"] or record["identity"]["pid"] not in group:
            return "dead", group
        return ("ready" if self.answers(record["port"]) else "living"), group


def _began(said: str) -> bool:
    """Whether a command came as far as to run anything of mscli's, by what it wrote: all that a traceback from before
    it tells of the package is the top of the module that is run."""
    return "mscli" in re.sub(r'File "[^"]*/mscli/__main__\.py", line \d+, in <module>\n', "", said)


def judge_command(played: Round, command: Command) -> list[Wrong]:
    """What is wrong with how a command ended, whatever befell it."""
    said = command.err if command.args[0] == "logs" else command.out + command.err  # an engine may log tracebacks
    line = f"mscli {' '.join(command.args)} (pid {command.pid})"
    if command.conditions.real and signal.SIGINT in command.signals and command.out == "" and not _began(said):
        return []  # a Ctrl-C while Python itself was starting
    if command.code == OUTSIDE and signal.SIGINT in command.signals:
        return []
    wrongs = []
    if "Traceback (most recent call last)" in said or "internal error" in said:
        wrongs.append(Wrong("traceback", f"{line}: {said[-1500:]}"))
    assert command.code is not None
    if command.code not in EXITS and -command.code not in command.signals:
        wrongs.append(Wrong("wrong exit code", f"{line} = {command.code}: {said[-300:]}"))
    if "--json" in command.args and command.conditions.heard and command.code >= 0:
        wrongs += _judge_json(command, line)
    return wrongs


def _judge_json(command: Command, line: str) -> list[Wrong]:
    lines = command.out.splitlines()
    try:
        envelope = json.loads(command.out)
        assert len(lines) == 1
    except (ValueError, AssertionError):
        return [Wrong("not one JSON object", f"{line}: {command.out[:500]!r}")]
    if envelope["ok"]:
        after = command.code == 130 and signal.SIGINT in command.signals  # a Ctrl-C when the answer was out
        good = command.code == 0 or command.code == _FINDS.get(command.args[0]) or after
    else:
        good = command.code == _EXIT_OF.get(envelope["error"]["code"], 1)
    return [] if good else [Wrong("wrong exit code", f"{line} = {command.code}, and says {command.out[:300]}")]


def judge_quiet(played: Round, command: Command) -> list[Wrong]:
    """What is wrong after a command that succeeded, with nothing befalling it."""
    verb, *words = command.args
    if command.code != 0 or {"--dry-run", "--no-wait"} & set(words) or (played.orders / "die").exists():
        return []
    line, named = f"mscli {' '.join(command.args)}", words[:1] if words and not words[0].startswith("-") else []
    if verb in ("up", "restart") and named:
        state, _ = played.home.expected().get(named[0], ("absent", ()))
        return [] if state == "ready" else [Wrong("wrong exit code", f"{line} = 0, and {named[0]} is {state}")]
    if verb == "down" and (named or "--all" in words):
        left = [process for process in played.home.living() if not named or process.name == named[0]]
        return [Wrong("lost engine", f"{line} = 0, and there is left: {left}")] if left else []
    return []


def judge_end(played: Round) -> list[Wrong]:
    """What is wrong after a round: looked at, then stopped, started once more and purged."""
    wrongs, unreadable = _judge_status(played)
    wrongs += _judge_down(played, unreadable)
    for name in unreadable:  # the user moves them away
        shutil.rmtree(played.home.instances / name)
    wrongs += _judge_next(played)
    wrongs += _judge_rest(played)
    return wrongs


def _judge_status(played: Round) -> tuple[list[Wrong], set[str]]:
    """Compare what status says with what is there, once that holds still; and the records that it cannot read."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        before = played.home.expected()
        command = played.call("status", "--all", "--json")
        after, living = played.home.expected(), played.home.living()
        if before == after:
            break
        if time.monotonic() > deadline:
            return [Wrong("unrest", f"{before} became {after}")], set()
    wrongs = judge_command(played, command)
    shown = {item["name"]: item for item in _data(command).get("instances", ())}
    unreadable = {item["name"] for item in _data(command).get("unreadable", ())}
    for name, (state, group) in after.items():
        if name not in unreadable:
            wrongs += _judge_shown(name, state, group, shown.get(name))
    for process in living:
        known = after.get(process.name, ("", ()))[1]
        if process.pid not in known and process.name not in unreadable:
            wrongs.append(Wrong("lost engine", f"{process} lives, and no record knows it"))
    if command.code != (0 if any(item["state"] in _STATES_OF_THE_LIVING for item in shown.values()) else 3):
        wrongs.append(Wrong("wrong exit code", f"status = {command.code}, and shows {shown}"))
    return wrongs, unreadable


def _judge_shown(name: str, state: str, group: tuple[int, ...], shown: dict[str, Any] | None) -> list[Wrong]:
    allowed = {
        "stopped": {"stopped"},
        "dead": {"crashed"} if group else {"crashed", "stopped"},
        "living": {"starting", "unresponsive"},
        "ready": {"ready"},
    }[state]
    if shown is None or shown["state"] not in allowed:
        return [Wrong("wrong status", f"{name} is {state} ({group}), and shown as {shown and shown['state']}")]
    if state == "stopped" and group:
        return [Wrong("lost engine", f"{name} is shown as stopped, and {group} live")]
    if state == "dead" and tuple(sorted(shown["orphans"])) != tuple(sorted(group)):
        return [Wrong("wrong status", f"{name} left {group}, and the orphans shown are {shown['orphans']}")]
    return []


def _judge_down(played: Round, unreadable: set[str]) -> list[Wrong]:
    force = ("--force",) if unreadable else ()
    command = played.call("down", "--all", "--json", *force)
    wrongs = judge_command(played, command)
    if command.code != 0:
        wrongs.append(Wrong("wrong exit code", f"the last down --all = {command.code}: {command.out[:500]}"))
    if left := played.home.living():
        wrongs.append(Wrong("orphan", f"after the last down --all: {left}"))
        played.home.kill_all()
    status = played.call("status", "--json")
    if status.code != 3 or _data(status).get("instances") != []:
        wrongs.append(Wrong("wrong status", f"after the last down --all: {status.code}, {status.out[:500]}"))
    for folder in played.home.instances.iterdir() if played.home.instances.is_dir() else ():
        if folder.is_dir() and folder.name not in unreadable:
            names = {path.name for path in folder.iterdir()}
            if left_over := {name for name in names if name.startswith(".") or name in ("tmp", "ready", "stopping")}:
                wrongs.append(Wrong("leftover file", f"{folder.name}: {sorted(left_over)}"))
    return wrongs


def _judge_next(played: Round) -> list[Wrong]:
    """The next commands work."""
    up = played.call("up", "one", "--json", "--timeout", "60")
    wrongs = judge_command(played, up)
    if up.code != 0 or _data(up).get("instance", {}).get("state") != "ready":
        return [*wrongs, Wrong("next command", f"up = {up.code}: {up.out[:800]}")]
    if played.plan.seed % 4 == 0:
        chat = played.call("chat", "-i", "one", "hello")
        if chat.code != 0 or not chat.out.strip():
            wrongs.append(Wrong("next command", f"chat = {chat.code}: {chat.out[:200]} {chat.err[:300]}"))
    down = played.call("down", "--all", "--purge", "--json")
    if down.code != 0:
        wrongs.append(Wrong("next command", f"down --all --purge = {down.code}: {down.out[:500]}"))
    if left := played.home.living():
        wrongs.append(Wrong("orphan", f"after the purge: {left}"))
    return wrongs


def _judge_rest(played: Round) -> list[Wrong]:
    """No file, lock, port or claim is left, nothing is open to others, and no stranger came to harm."""
    wrongs, state, home = [], played.folder / "home" / "state", played.home.instances
    with_record = [path.parent.name for path in home.glob("*/record.json")]
    hidden = [path.name for path in home.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    temporary = [str(path.relative_to(played.folder)) for path in (played.folder / "tmp").iterdir()]
    temporary += [str(path.relative_to(played.folder)) for path in state.rglob(".*") if path.name != ".lock"]
    if left := [*with_record, *hidden, *temporary]:
        wrongs.append(Wrong("leftover file", f"after the purge: {left}"))
    if (state / "last-fault.txt").exists():
        wrongs.append(Wrong("traceback", (state / "last-fault.txt").read_text()[-1500:]))
    if _locked(home / ".lock"):
        wrongs.append(Wrong("leftover lock", str(home / ".lock")))
    claims = Path("/proc/net/unix").read_text()
    ports = range(played.first_port, played.first_port + 40)
    if left_claims := [port for port in ports if f"@mscli-port-{port}\n" in claims]:
        wrongs.append(Wrong("leftover claim", f"of ports {left_claims}"))
    if left_ports := [port for port in ports if _listens(port)]:
        wrongs.append(Wrong("leftover port", f"something listens on {left_ports}"))
    for folder in (state, home):
        if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            wrongs.append(Wrong("open folder", f"{folder}: {folder.stat().st_mode:o}"))
    wrongs += [Wrong("stranger harmed", f"pid {it.pid}") for it in played.strangers if it.poll() is not None]
    return wrongs


def _locked(path: Path) -> bool:
    found = path.stat()
    where = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    return any(line.split()[5] == where for line in Path("/proc/locks").read_text().splitlines())


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _data(command: Command) -> dict[str, Any]:
    """What a command said with --json, or nothing."""
    try:
        said = json.loads(command.out)
    except ValueError:
        return {}
    data = said.get("data")
    return data if isinstance(data, dict) else {}
