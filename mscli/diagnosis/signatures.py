"""What in a log points to a cause. The signatures: patterns of log lines, read from the YAML files beside this module.

One file for each mechanism, which apply to every log, and one for each engine, which apply to logs of that engine.
`signatures/README.md` explains the keys.

And the readings, which take arithmetic on a line: what was free beside what there was, what was placed beside what
there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from mscli.diagnosis.causes import CAUSES, REQUEST, START, UNKNOWN, WARNING, read_data
from mscli.diagnosis.matching import Patterns, compiled
from mscli.frozen import frozen

MECHANISMS = (
    "driver", "hardware", "memory", "multi_gpu", "container", "software", "config", "weights", "service",
)  # fmt: skip
_LISTS = ("patterns", "beside", "unless", "unless_here", "speakers", "matches", "misses")
_TEXTS = ("summary", "remedy", "scope", "source")
_NUMBERS = ("cuda_errors", "nvml_errors")
_NOTHING = r"\z\A."  # matches no text

_ERROR = r"\b(?:err(?:or)?|failure|failed|returned|code|status|context)\W{0,4}(?:code\W{0,3})?"
_ENDS = r"(?:$|[^\d.:]|[.:](?:\D|$))"
# The wordings in which CUDA, NVML, their wrappers and the engines print an error by its number.
_BY_NUMBER = {
    "cuda_errors": rf"\b(?:cuda\w*|cu[A-Z]\w+|nvcuda|cudart)\b.{{0,60}}?{_ERROR}NUMBER{_ENDS}",
    "nvml_errors": rf"\bnvml\w*\b.{{0,40}}?{_ERROR}NUMBER{_ENDS}",
}


@frozen
class Signature:
    """Lines that point to one cause, as one entry of a file says it.

    `patterns`: regular expressions in RE2's syntax, of which one must match; a blank also matches a line break, letters
    match in any case. `beside`: one of these must match somewhere in the log as well; `unless`: none of these may;
    `unless_here`: none may match the lines that `patterns` matched. `strength`, 0 to 1: how often the cause is this one
    where the signature is seen. `summary` and `remedy` may name groups of the patterns; empty: those of the cause.
    `speakers`: whose lines count (see speakers.yaml); empty: everybody's who says something himself. `source`: where it
    was seen. `matches`, `misses`: texts for the test.
    """

    name: str
    code: str
    strength: float
    patterns: tuple[str, ...]
    beside: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    unless_here: tuple[str, ...] = ()
    summary: str = ""
    remedy: str = ""
    scope: str = START
    speakers: tuple[str, ...] = ()
    source: str = ""
    matches: tuple[str, ...] = ()
    misses: tuple[str, ...] = ()


@frozen
class Table:
    """The signatures that apply to one kind of log, and all their patterns to be searched together."""

    signatures: tuple[Signature, ...]
    patterns: Patterns


@frozen
class EngineLog:
    """How the log of an engine is known. `files`: its signatures; `written`: what stands in nearly every line; `ready`:
    lines that it writes once it serves; `not_started`: exit statuses that say that a container was not started, so that
    the log holds the words of its `client` alone."""

    files: tuple[str, ...]
    written: str
    ready: str
    client: str
    not_started: tuple[int, ...]


@lru_cache(maxsize=8)
def table(engine: str | None) -> Table:
    """The signatures of every mechanism, and those of the engine, as `known_as` names it, that wrote the log."""
    known = engine_logs()[engine] if engine else None
    names = (*MECHANISMS, *(known.files if known else ()))
    return _table([signature for name in names for signature in read_signatures(name)])


@lru_cache(maxsize=1)
def topics() -> Table:
    """What error lines may be about: guesses, for logs in which no signature is seen."""
    return _table(read_signatures("topics"))


def _table(signatures: Sequence[Signature]) -> Table:
    every = (
        pattern
        for one in signatures
        for pattern in (*one.patterns, *one.beside, *one.unless)
    )  # fmt: skip
    return Table(tuple(signatures), Patterns(dict.fromkeys(every)))


@lru_cache(maxsize=1)
def engine_logs() -> Mapping[str, EngineLog]:
    """How the log of each engine is known, by the engine's name."""
    return {name: _engine_log(row) for name, row in read_data("engines").items()}


def _engine_log(row: Mapping[str, Any]) -> EngineLog:
    written, ready = ("|".join(row.get(key, (_NOTHING,))) for key in ("written", "ready"))
    return EngineLog(tuple(row["files"]), written, ready, row.get("client", ""), tuple(row.get("not_started", ())))


def known_as(engine: str | None) -> str | None:
    """The name under which these files know an engine (`llama.cpp`: llamacpp); None where they do not know it."""
    name = (engine or "").lower().replace(".", "")
    return name if name in engine_logs() else None


def written_by(log: str) -> str | None:
    """The engine that wrote a log, told by what it says; None where that is not clear."""
    text = log.encode(errors="replace")
    return next((name for name, known in engine_logs().items() if compiled(known.written).search(text)), None)


@lru_cache(maxsize=32)
def read_signatures(name: str) -> tuple[Signature, ...]:
    """The signatures of one file. Raises ValueError for a key or code that is not known."""
    rows = read_data(name)
    return tuple(_signature(f"{name}:{number}", row) for number, row in enumerate(rows, 1))


def _signature(name: str, row: Mapping[str, Any]) -> Signature:
    unknown = row.keys() - {"code", "strength", *_LISTS, *_TEXTS, *_NUMBERS}
    code = row["code"]
    if unknown or not (code in CAUSES or code == UNKNOWN) or row.get("scope", START) not in (START, REQUEST, WARNING):
        raise ValueError(f"signature {name}: {', '.join(unknown) or code} is not known")
    numbered = [_BY_NUMBER[kind].replace("NUMBER", str(one)) for kind in _NUMBERS for one in row.get(kind, ())]
    lists: dict[str, Any] = {key: tuple(row.get(key, ())) for key in _LISTS}
    texts = {key: row[key] for key in _TEXTS if key in row}
    lists["patterns"] += tuple(numbered)
    scope = CAUSES[code].scope if code in CAUSES else START
    return Signature(name, code, row["strength"], **{"scope": scope, **lists, **texts})


_UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"\"?([\d.]+) ?([KMGT]?)i?B\"?"

_PROFILED = re.compile(rf"total_gpu_memory={_SIZE}.*?initial_memory_usage={_SIZE}")
_NO_BLOCKS = re.compile(r"No available memory for the cache blocks|KV cache is needed|stored in KV cache")
_LOADED = re.compile(r"[Ll]oading (?:model )?weights took ([\d.]+) G")
_TORCH = re.compile(rf"; {_SIZE} total capacity; .*?; {_SIZE} free; {_SIZE} reserved")
_TORCH_2 = re.compile(rf"total capacity of {_SIZE} of which {_SIZE} is free\..*this process has {_SIZE} memory in use")
_DISCOVERED = re.compile(rf"inference compute.*?total={_SIZE}.*?available={_SIZE}")
_OFFLOAD = re.compile(r"layers\.model=(\d+).*?layers\.offload=(\d+)|offloaded (\d+)/(\d+) layers to GPU")
_OLLAMA_PS = re.compile(r"\b(\d+)%/\d+% CPU/GPU\b|\b100% CPU\b")
_DOWNLOADING = re.compile(r"msg=\"downloading ([0-9a-f]{8,}) in \d+ ")
_CPU_GRAPH = re.compile(rf"compute graph\" .*\bCPU\b.*size={_SIZE}")

_RATE = re.compile(r"^(?P<name>[^%]{1,160}?)\s+(?P<share>\d{1,3})%.*?(?P<rate>[\d.]+) ?(?P<unit>[kKMG]?)i?B/s")
_CURL_RATE = re.compile(
    r"^(?P<name>)\s*(?P<share>\d{1,3})\s+[\d.]+[kMGT]?\s+\d+\s+[\d.]+[kMGT]?\s+0\s+0\s+[\d.]+[kMGT]?\s+0(?:\s+[\d:-]+){3}"
    r"\s+(?P<rate>[\d.]+)(?P<unit>[kMGT]?)\s*$"
)
_WENT_ON = re.compile(
    r"verifying sha256|\bsuccess\b|load_tensors|[Ll]oading (?:model|weights|safetensors)|startup complete"
)
_FAST_BYTES, _SLOW_BYTES, _STILL_BYTES, _FELL_TO = 2**20, 2**19, 10 * 2**10, 20  # a second; and by which factor

_STARTS_OVER = 20  # per cent by which a download falls back that does not resume

_HELD = "See which processes use GPU memory: `mscli gpus`. Stop them, or plan again with what is free: `mscli up`."
_AGAIN = (
    "Stop it and start again: it resumes. If it slows down again, look at the network and the hub's or proxy's limits."
)
_LESS = "Use a smaller --ctx, --kv q8_0, or a smaller variant; `mscli plan` shows what fits."


@frozen
class Reading:
    """A line that shows a cause by its figures. `summary` and `remedy`: empty where the cause's own words do."""

    code: str
    strength: float
    line: int
    summary: str = ""
    remedy: str = ""


Judge = Callable[[Sequence[str]], Iterator[Reading]]


def _vllm_neighbour(lines: Sequence[str]) -> Iterator[Reading]:
    """The memory that was in use before the profiling run, less the weights, belongs to another process."""
    if not any(map(_NO_BLOCKS.search, lines)):
        return
    weights = max((float(seen[1]) * 2**30 for line in lines if (seen := _LOADED.search(line))), default=0.0)
    for number, line in enumerate(lines):
        if seen := _PROFILED.search(line):
            total, before = _bytes(seen[1], seen[2]), _bytes(seen[3], seen[4])
            if before - weights > total / 2:
                what = f"{seen[3]} of {seen[1]} GiB of GPU memory were in use before the KV cache was allocated"
                yield Reading("gpu_busy", 0.9, number, what, _HELD)


def _torch_neighbour(lines: Sequence[str]) -> Iterator[Reading]:
    """PyTorch holds less than half of the card, and yet hardly anything is free."""
    for number, line in enumerate(lines):
        if seen := _TORCH.search(line) or _TORCH_2.search(line):
            total, free, own = (_bytes(seen[place], seen[place + 1]) for place in (1, 3, 5))
            if own < total / 2 and free < total / 8:
                yield Reading("gpu_busy", 0.9, number)


def _ollama_neighbour(lines: Sequence[str]) -> Iterator[Reading]:
    """More than half of the GPU was in use before the model came, and then layers were left on the CPU."""
    fallen = any(True for _ in _offloaded(lines))
    for number, line in enumerate(lines):
        seen = _DISCOVERED.search(line) if fallen and "library=cpu" not in line else None
        if seen and _bytes(seen[3], seen[4]) < _bytes(seen[1], seen[2]) / 2:
            free, total = (f"{seen[place]} {seen[place + 1]}iB" for place in (3, 1))
            what = f"layers were left on the CPU: only {free} of {total} were free on a GPU"
            yield Reading("gpu_busy", 0.9, number, what, _HELD)


def _offloaded(lines: Sequence[str]) -> Iterator[Reading]:
    """Layers of the model, or its compute graph, are on the CPU."""
    for number, line in enumerate(lines):
        if "offload" in line and (seen := _OFFLOAD.search(line)):
            placed, of = (int(seen[2]), int(seen[1])) if seen[1] else (int(seen[3]), int(seen[4]))
            if placed < of:
                what = f"only {placed} of {of} layers are on the GPU, the rest run on the CPU"
                yield Reading("cpu_fallback", 0.85 if placed == 0 else 0.75, number, what, _LESS)
        elif "% CPU" in line and _OLLAMA_PS.search(line):
            yield Reading("cpu_fallback", 0.9, number)
        elif "compute graph" in line and (seen := _CPU_GRAPH.search(line)) and _bytes(seen[1], seen[2]) > 2**30:
            yield Reading("cpu_fallback", 0.8, number)


def _blob_again(lines: Sequence[str]) -> Iterator[Reading]:
    """Ollama fetches one blob after the other: what it fetches again after another one arrived, and was discarded."""
    arrived: set[str] = set()
    last = ""
    for number, line in enumerate(lines):
        if seen := _DOWNLOADING.search(line):
            if seen[1] in arrived:
                yield Reading("corrupt_download", 0.6, number)
            if last and last != seen[1]:
                arrived.add(last)
            last = seen[1]


def _collapsed(lines: Sequence[str]) -> Iterator[Reading]:
    """A download that was fast and then nearly stood still, without a line that says so."""
    rates: dict[str, list[tuple[int, int, float]]] = {}
    for number, line in enumerate(lines):
        if seen := (_RATE.match(line) if "B/s" in line else _CURL_RATE.match(line) if "%" not in line else None):
            name = (seen["name"].split() or [""])[-1].rstrip(":")
            rate = _bytes(seen["rate"].strip(".") or "0", seen["unit"].upper())
            rates.setdefault(name, []).append((number, int(seen["share"]), rate))
    for name, steps in rates.items():
        number, share, last = steps[-1]
        best = max(rate for *_, rate in steps)
        fell = best >= _FAST_BYTES and last < min(best / _FELL_TO, _SLOW_BYTES)
        if share < 100 and (fell or last < _STILL_BYTES) and not any(map(_WENT_ON.search, lines[number:])):
            what = f"the download of {name or 'a file'} fell from {best / 2**20:.0f} MiB/s to {last / 2**10:.0f} KiB/s"
            still = f"the download of {name or 'a file'} runs at {last / 2**10:.0f} KiB/s"
            yield Reading("stalled_download", 0.85 if fell else 0.6, number, what if fell else still, _AGAIN)
        for (_, before, _), (number, share, _) in pairwise(steps):
            if share < before - _STARTS_OVER:
                what = f"the download of {name or 'a file'} started over at {share} %, after it was at {before} %"
                yield Reading("stalled_download", 0.75, number, what, _AGAIN)


def _bytes(number: str, unit: str) -> float:
    return float(number) * _UNITS[unit or "B"]


JUDGES: tuple[Judge, ...] = (
    _vllm_neighbour,
    _torch_neighbour,
    _ollama_neighbour,
    _offloaded,
    _blob_again,
    _collapsed,
)
