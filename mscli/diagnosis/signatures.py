"""The signatures: patterns of log lines that point to a cause, read from the YAML files beside this module.

One file for each mechanism, which apply to every log, and one for each engine, which apply to logs of that engine.
`signatures/README.md` explains the keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
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
