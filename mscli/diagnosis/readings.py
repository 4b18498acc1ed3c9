"""Causes that take arithmetic on a line: what was free beside what there was, what was placed beside what there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from mscli.frozen import frozen

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
