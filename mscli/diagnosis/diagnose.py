"""From a log to its causes: the signs seen in it, weighed against each other.

How sure a finding is: each sign brings the strength written in its table (how often its cause is the right one where
the sign is seen). The strongest sign of a cause gives its confidence; every other line that supports it takes away a
fifth of the remaining doubt, by its own strength. What the machine shows changes the odds. A cause that another, surer
one leads to keeps 40 % of its confidence, and beside a surer cause every other one gives way by half of the surer one's
confidence: one log mostly has one cause. Where no sign is seen, what the error lines are about is named as a guess,
with a confidence of 0.4 at most.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from mscli.diagnosis.causes import CAUSES, LEADS_TO
from mscli.diagnosis.facts import Facts, weighed
from mscli.diagnosis.log import telling
from mscli.diagnosis.readings import JUDGES, Judge
from mscli.diagnosis.signature import Sign, first
from mscli.diagnosis.tables import ENGINES, MECHANISMS, written_by
from mscli.diagnosis.topics import TOPICS
from mscli.diagnosis.wordings import spread, worth_searching

_CERTAIN = 0.98
_SUPPORT = 0.2
_CONSEQUENCE = 0.4
_GIVES_WAY = 0.5
_WORTH_SAYING = 0.1
_MATCHES = 3
_GUESSES = 3
_EVIDENCE = 5
_LINE = 400


@dataclass(frozen=True)
class RankedCause:
    """One cause of the closed list. `confidence`, 0 to 1: how sure it is the root cause. `evidence`: lines of the log,
    the most telling first."""

    code: str
    confidence: float
    evidence: tuple[str, ...]
    summary: str
    remedy: str


@dataclass(frozen=True)
class Clue:
    """A sign where it was seen: the lines from `line` to `last` of those that can tell something."""

    sign: Sign
    line: int
    last: int
    words: Mapping[str, str]


def diagnose(log: str, backend: str | None = None, facts: Facts | None = None) -> tuple[RankedCause, ...]:
    """The causes that a log supports, most likely first; empty where nothing supports one.

    `backend`: whose log it is, if known; else the log itself tells. Pure; takes about a second per 10 MB.
    """
    engine = written_by(log, backend)
    found = weigh(log, MECHANISMS, ENGINES.get(engine or "", ()), facts)
    return found or guess(log, facts)


def guess(log: str, facts: Facts | None = None) -> tuple[RankedCause, ...]:
    """What the error lines of a log are about, where no sign is seen in it: never with half a confidence."""
    return weigh(log, TOPICS, facts=facts, judges=())[:_GUESSES]


def weigh(
    log: str,
    signs: Iterable[Sign],
    ordered: Sequence[Sign] = (),
    facts: Facts | None = None,
    judges: Iterable[Judge] = JUDGES,
) -> tuple[RankedCause, ...]:
    """The causes that a log supports by all of `signs`, by the first that is seen of the `ordered` ones, and by what
    the `judges` read from its figures."""
    lines = telling(log)
    clues: dict[str, list[Clue]] = {}
    for clue in [*_clues(lines, signs), *_first(lines, ordered), *_read(lines, judges)]:
        clues.setdefault(clue.sign.code, []).append(clue)
    found = [_finding(code, own, lines, facts) for code, own in clues.items()]
    position = {code: min(clue.line for clue in own) for code, own in clues.items()}
    return _ranked(found, position)


def _first(lines: Sequence[str], ordered: Sequence[Sign]) -> list[Clue]:
    lowered = "\n".join(lines).lower()
    seen = first([sign for sign in ordered if worth_searching(sign.pattern, lowered)], lines)
    return [Clue(seen.sign, seen.line, seen.line, seen.match.groupdict(""))] if seen else []


def _read(lines: Sequence[str], judges: Iterable[Judge]) -> list[Clue]:
    return [
        Clue(Sign(seen.code, "", strength=seen.strength), seen.line, seen.line, {})
        for judge in judges
        for seen in judge(lines)
    ]


def _clues(lines: Sequence[str], signs: Iterable[Sign]) -> list[Clue]:
    text = "\n".join(lines)
    lowered = text.lower()
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
    clues: list[Clue] = []
    for sign in signs:
        for match in _matches(sign, text, lowered):
            begin, end = match.start(), max(match.end() - 1, match.start())
            line, last = bisect_right(starts, begin) - 1, bisect_right(starts, end) - 1
            clues.append(Clue(sign, line, last, match.groupdict("")))
    return clues


def _matches(sign: Sign, text: str, lowered: str) -> list[re.Match[str]]:
    if (wordings := worth_searching(sign.pattern, lowered)) is None:
        return []
    found = [match for match, _ in zip(spread(wordings).finditer(text), range(_MATCHES), strict=False)]
    if found and sign.beside and not spread(sign.beside).search(text):
        return []
    if found and sign.unless and spread(sign.unless).search(text):
        return []
    return found


def _finding(code: str, clues: Sequence[Clue], lines: Sequence[str], facts: Facts | None) -> RankedCause:
    ordered = sorted(clues, key=lambda clue: (-clue.sign.strength, clue.line))
    confidence, used = ordered[0].sign.strength, {lines[ordered[0].line]}
    for clue in ordered[1:]:
        if lines[clue.line] not in used:
            used.add(lines[clue.line])
            confidence += (1 - confidence) * _SUPPORT * clue.sign.strength
    confidence = weighed(code, min(confidence, _CERTAIN), facts)
    summary, remedy = _words(code, ordered)
    return RankedCause(code, confidence, _evidence(ordered, lines), summary, remedy)


def _words(code: str, ordered: Sequence[Clue]) -> tuple[str, str]:
    """What the strongest sign with words of its own says, else what the code means."""
    for clue in ordered:
        if clue.sign.summary:
            return clue.sign.summary.format(**clue.words), clue.sign.remedy.format(**clue.words)
    return CAUSES[code]


def _evidence(ordered: Sequence[Clue], lines: Sequence[str]) -> tuple[str, ...]:
    shown: dict[str, None] = {}
    for clue in ordered:
        for line in lines[clue.line : clue.last + 1]:
            shown.setdefault(line.strip()[:_LINE], None)
    return tuple(shown)[:_EVIDENCE]


def _ranked(found: Sequence[RankedCause], position: Mapping[str, int]) -> tuple[RankedCause, ...]:
    """Causes before their consequences, surer before less sure, and of two equally sure the one seen first."""
    sure = {finding.code: finding.confidence for finding in found}
    roots = [replace(finding, confidence=_as_consequence(finding, sure)) for finding in found]
    roots.sort(key=lambda finding: (-round(finding.confidence, 1), position[finding.code], -finding.confidence))
    ranked: list[RankedCause] = []
    for finding in roots:
        room = 1 - _GIVES_WAY * max((before.confidence for before in ranked), default=0.0)
        ranked.append(replace(finding, confidence=round(finding.confidence * room, 2)))
    return tuple(finding for finding in ranked if finding.confidence >= _WORTH_SAYING)


def _as_consequence(finding: RankedCause, sure: Mapping[str, float]) -> float:
    for cause, confidence in sure.items():
        if finding.code in LEADS_TO.get(cause, ()) and confidence >= 0.5:
            mutual = cause in LEADS_TO.get(finding.code, ())
            if confidence > finding.confidence or (not mutual and confidence >= finding.confidence - 0.3):
                return finding.confidence * _CONSEQUENCE
    return finding.confidence
