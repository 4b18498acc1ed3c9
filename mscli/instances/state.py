"""An instance as users see it: its record, whether its processes live, and what its endpoint answers."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mscli.frozen import frozen
from mscli.instances.fetching import fetching
from mscli.instances.process import Identity, alive, children, group_lazily, members
from mscli.instances.store import Store, Unreadable
from mscli.inventory.ports import listens, owner

STARTING, READY, UNRESPONSIVE, CRASHED, STOPPED = "starting", "ready", "unresponsive", "crashed", "stopped"
_ANSWER_BYTES = 4 << 20
UNLOADED = "unloaded"
"""The server answers, and the model is not in its memory."""
_ASLEEP = "idle: the model is not in memory; the next request loads it again"
RUNNING = (STARTING, READY, UNLOADED, UNRESPONSIVE)


# Asks a server for a path; the JSON that it answers, or None without an answer.
Ask = Callable[[str], Any]


@frozen
class Instance:
    """One instance now. `since`: seconds since the epoch. `model`: the name that clients send.

    `pid` None: the server is not ours; `owner` says whose it is.
    `orphans`: processes of ours that outlived their leader and may still hold GPU memory. `container`: the one it runs
    in; `orphaned`: that container outlived its client.
    `stand_in`: the model is a scripted stand-in, not a language model. `note`: what else there is to say of its state.
    `restarts`: how often its companion has started it again; `last_end`: why it ended last, in words.
    `served_context`, `gpu_bytes`, `gpu_share`: what it took when it became ready (see records.Taken); None: not known.
    `idle_stop_s`: after how many seconds without a request the model leaves the memory; None: never.
    `engine_port`: the engine's own behind a gateway, on loopback and without a key; None: there is none.
    """

    name: str
    profile: str
    engine: str
    state: str
    pid: int | None
    owner: str | None
    port: int
    base_url: str
    model: str
    context: int
    gpus: tuple[int, ...]
    since: float
    log: Path
    stand_in: bool
    orphans: tuple[int, ...]
    container: str | None = None
    orphaned: bool = False
    note: str | None = None
    restarts: int = 0
    last_end: str | None = None
    served_context: int | None = None
    gpu_bytes: Mapping[str, int] | None = None
    gpu_share: float | None = None
    idle_stop_s: int | None = None
    engine_port: int | None = None


def look(raw: Mapping[str, Any], store: Store) -> Instance | Unreadable:
    """The instance of a record (as JSON data) now, or what of the record cannot be read.

    Waits at most about 2 seconds, for an endpoint that does not answer, and for a container's engine where its client
    is gone: never for one that is well.
    """
    try:
        return _look(raw, store)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as fault:
        name = str(raw.get("name"))
        return Unreadable(name, store.run_dir(name) / "record.json", f"a field is missing or damaged: {fault!r}")


def _look(raw: Mapping[str, Any], store: Store) -> Instance:
    plan, identity = raw["plan"], _identity(raw["identity"])
    state, orphans, orphaned = _state(raw, identity, store)
    state, note = _of_model(raw, identity, store) if state == READY else (state, _of_start(raw, store, state))
    contained = raw.get("contained")
    return Instance(
        name=str(raw["name"]),
        profile=str(plan["profile"]),
        engine=str(plan["engine"]),
        state=state,
        pid=identity.pid if identity else None,
        owner=raw["owner"],
        port=_number(raw["port"]),
        base_url=base_url(raw["host"], raw["port"]),
        model=str(raw["alias"]),
        context=_number(plan["context"]),
        gpus=tuple(_number(gpu) for gpu in plan["gpus"]),
        since=float(raw["since"]),
        log=Path(raw["log"]),
        stand_in=bool(raw["stand_in"]),
        orphans=orphans,
        container=str(contained["name"]) if contained else None,
        orphaned=orphaned,
        note=note,
        restarts=_number(raw.get("restarts", 0)),
        last_end=str(raw["last_end"]["summary"]) if raw.get("last_end") else None,
        **_taken(raw.get("taken")),
        idle_stop_s=raw["request"].get("idle_stop_s"),
        engine_port=raw.get("engine_port"),
    )


def _taken(raw: Mapping[str, Any] | None) -> dict[str, Any]:
    if raw is None:
        return {}
    gpu_bytes = {str(gpu): _number(taken) for gpu, taken in raw["gpu_bytes"].items()}
    return {"served_context": raw["context"], "gpu_bytes": gpu_bytes, "gpu_share": raw["gpu_share"]}


def base_url(host: str, port: int) -> str:
    """The OpenAI-compatible base URL, as a client on this machine reaches it."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}/v1"


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"expected a number, not {value!r}")
    return value


def _identity(raw: Any) -> Identity | None:
    return Identity(int(raw["pid"]), int(raw["start_ticks"]), str(raw["boot_id"])) if raw else None


def _state(raw: Mapping[str, Any], identity: Identity | None, store: Store) -> tuple[str, tuple[int, ...], bool]:
    """The state, processes left behind, and whether a container is."""
    name, starter = raw["name"], _identity(raw.get("starter"))
    waited_for = starter is not None and alive(starter)
    if raw["stopped_at"] is not None:
        return STOPPED, (), False
    if identity is None and raw["owner"] is None and waited_for:  # about to be spawned
        return STARTING, (), False
    if raw["owner"] is None and not (identity and alive(identity)):
        left, container_left = _left(raw, identity)
        ended = STOPPED if store.is_stopping(name) and not left and not container_left else CRASHED
        return ended, left, container_left
    if not _answers(raw, identity):
        return (UNRESPONSIVE if store.was_ready(name) else STARTING), (), False
    if not store.was_ready(name):
        if waited_for:  # it answers; whether the model is where it was planned is still looked at
            return STARTING, (), False
        store.mark_ready(name, raw["mark"])
    return READY, (), False


def _answers(raw: Mapping[str, Any], identity: Identity | None) -> bool:
    """True if its health check is good, and answered by the instance: the port may be somebody else's."""
    port = _number(raw["port"])
    if probe(raw["host"], port, raw["health_path"]).status != 200:
        return False
    if identity is None or raw.get("contained"):  # the port is held by another's server, or by the container's engine
        return True
    return listens(port, group_lazily(identity, raw["mark"])) is not False


def _of_model(raw: Mapping[str, Any], identity: Identity | None, store: Store) -> tuple[str, str | None]:
    """The state of an instance whose server answers, by whether the model is in its memory; and what to say of that."""
    host, port = _engine_address(raw)
    if raw["plan"]["engine"] != "ollama":
        return (UNLOADED, _ASLEEP) if raw["request"].get("idle_stop_s") and _sleeps(raw) else (READY, None)

    def ask(path: str) -> Any:
        return answer(host, port, path)

    if identity is None:
        pid = owner(_number(raw["port"]))
        runners, earlier = children(pid) if pid else None, re.match(r"(?:pid|PID) (\d+) ", raw["owner"] or "")
        restarted = pid is not None and earlier is not None and int(earlier[1]) != pid
    else:
        # with the companion and the gateway before it
        servers = 1 + bool(raw["request"].get("supervise")) + bool(raw.get("gateway"))
        runners, restarted = len(members(identity, raw["mark"])) - servers, False
    if why := unloaded(ask, raw["alias"], runners, restarted):
        return (UNLOADED, why) if store.was_ready(raw["name"]) else (STARTING, None)
    return READY, other_context(ask, raw["alias"], _number(raw["plan"]["context"]))


def _engine_address(raw: Mapping[str, Any]) -> tuple[str, int]:
    """See `Record.engine_address`."""
    port = raw.get("engine_port")
    return ("127.0.0.1", _number(port)) if port else (raw["host"], _number(raw["port"]))


def _sleeps(raw: Mapping[str, Any]) -> bool:
    """Whether llama.cpp has unloaded its idle model: its health says nothing of that, and asking does not wake it."""
    try:
        key = Path(raw["api_key_file"]).read_text().strip() if raw["api_key_file"] else None
    except OSError:
        return False
    said = answer(*_engine_address(raw), "/props", key=key)
    return isinstance(said, dict) and said.get("is_sleeping") is True


def unloaded(ask: Ask, alias: str, runners: int | None, restarted: bool) -> str | None:
    """In words, why the model `alias` is not in memory; None if it is, or the server does not say.

    `runners`: how many processes hold its models (None: not known). A server goes on listing a model whose process died
    until the next request for it. `restarted`: it is not the process that loaded the model.
    """
    held = _models(ask("/api/ps"))
    if held is None:
        return None
    if _named(held, alias):
        lives = runners is None or runners >= len(held)
        return None if lives else "the process that held the model died; the next request loads it again"
    here = _models(ask("/api/tags"))
    if here is not None and not _named(here, alias):
        return "the server has no such model any more: it was removed, or another server answers on this port"
    why = "the server was restarted" if restarted else "unloaded, evicted or expired"
    return f"the model is not in memory ({why}); the next request loads it again"


def other_context(ask: Ask, alias: str, planned: int) -> str | None:
    """In words, that the model is loaded with another context than planned; None if not, or the server does not say."""
    entry = _named(_models(ask("/api/ps")) or [], alias)
    context = entry.get("context_length") if entry else None
    if not isinstance(context, int) or context == planned:
        return None
    return f"the server serves a context of {context} tokens instead of the planned {planned}"


def _models(answer: Any) -> list[dict[str, Any]] | None:
    models = answer.get("models") if isinstance(answer, dict) else None
    return [model for model in models if isinstance(model, dict)] if isinstance(models, list) else None


def _named(models: list[dict[str, Any]], alias: str) -> dict[str, Any] | None:
    wanted = (alias.lower(), f"{alias.lower()}:latest")
    return next((model for model in models if str(model.get("model") or model.get("name")).lower() in wanted), None)


def _of_start(raw: Mapping[str, Any], store: Store, state: str) -> str | None:
    """How far a start is that has more to do than to spawn an engine; None if there is nothing to say."""
    if state != STARTING or raw["plan"]["engine"] != "ollama":
        return None
    if pulls := fetching(store, raw["name"]):
        return pulls[0].words
    answers = probe(*_engine_address(raw), "/api/version").status == 200
    return "the server is up and loading the model" if answers else None


def _left(raw: Mapping[str, Any], leader: Identity | None) -> tuple[tuple[int, ...], bool]:
    """What outlived the leader: processes, and whether its container is still there."""
    found = members(leader, raw["mark"])
    if not raw.get("contained"):
        return found, False
    from mscli.instances import container as containers  # with what it imports, half of the time of `mscli status`

    contained = containers.remembered(raw["contained"])
    return tuple(sorted({*found, *containers.pids(contained)})), containers.left(contained)


@frozen
class Probe:
    """One health check. `status`: the HTTP status, None without an answer; `reason`: refused, timeout, or a word."""

    status: int | None
    reason: str
    seconds: float


def probe(host: str, port: int, path: str, timeout_s: float = 1.0) -> Probe:
    """GET `path` once; waits at most about `timeout_s` for each of connect and answer.

    A raw socket, because importing an HTTP client costs more than the whole answer (http.client 20 ms, httpx 110 ms).
    """
    begun = time.monotonic()
    try:
        with _asked(host, port, path, timeout_s) as link:
            head = link.recv(64)
    except TimeoutError:
        return Probe(None, "timeout", time.monotonic() - begun)
    except OSError as fault:
        return Probe(None, "refused" if isinstance(fault, ConnectionRefusedError) else str(fault), 0.0)
    parts = head.split()
    if len(parts) < 2 or not parts[1].isdigit():
        return Probe(None, "no HTTP answer", time.monotonic() - begun)
    return Probe(int(parts[1]), "", time.monotonic() - begun)


def answer(host: str, port: int, path: str, timeout_s: float = 1.0, key: str | None = None) -> Any:
    """The JSON that a server answers to GET `path`; None without an answer of status 200. Waits as `probe` does."""
    import json

    said = b""
    try:
        with _asked(host, port, path, timeout_s, key) as link:
            while len(said) < _ANSWER_BYTES and (more := link.recv(65536)):
                said += more
        head, _, body = said.partition(b"\r\n\r\n")
        return json.loads(body) if head.split()[1:2] == [b"200"] else None
    except (OSError, ValueError):
        return None


def _asked(host: str, port: int, path: str, timeout_s: float, key: str | None = None) -> socket.socket:
    """A connection over which `path` was asked for. HTTP/1.0: the answer ends with the connection, in one piece."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    name = f"[{target}]" if ":" in target else target
    link = socket.create_connection((target, port), timeout_s)
    key_line = f"Authorization: Bearer {key}\r\n" if key else ""
    link.sendall(f"GET {path} HTTP/1.0\r\nHost: {name}:{port}\r\n{key_line}Connection: close\r\n\r\n".encode())
    return link
