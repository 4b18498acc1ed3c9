"""From a log to its causes: the signatures seen in it, weighed against each other.

One algorithm for every reader: a failed start, healing, `doctor --log`, the report and the checks of the doctor.

How sure a finding is: each signature brings the strength written in its file (how often its cause is the right one
where it is seen). The strongest one of a cause gives its confidence; every other line that supports it takes away a
fifth of the remaining doubt, by its own strength. What the machine shows changes the odds. A cause that another, surer
one leads to keeps 40 % of its confidence, and beside a surer cause every other one gives way by half of the surer one's
confidence: one log mostly has one cause, though each request may be refused for another one. Where no signature is
seen, what the error lines are about is named as a guess, with a confidence of 0.4 at most. What is said in the end is
how often such a confidence was right, measured on labelled failures (`benchmarks/calibration.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice

from mscli.diagnosis.causes import (
    CAUSES,
    LIKELY,
    REQUEST,
    START,
    WARNING,
    Cause,
    Facts,
    any_pattern,
    fitted,
    read_data,
    weighed,
)
from mscli.diagnosis.excerpt import Excerpt, error_lines, excerpt, telling
from mscli.diagnosis.matching import Lines, Text, compiled, fitting, of_request
from mscli.diagnosis.signatures import JUDGES, Judge, Signature, Table, engine_logs, known_as, table, topics, written_by
from mscli.frozen import frozen, replace

_CERTAIN = 0.98
_SUPPORT = 0.2
_CONSEQUENCE = 0.4
_GIVES_WAY = 0.5
_WORTH_SAYING = 0.1
_MATCHES = 3  # of one signature that count
_LOOKED_AT = 20  # of one pattern
_GUESSES = 3
_EVIDENCE = 5
_UNKNOWN_LINES = 8
_LAST_ERRORS = 3
_NEIGHBOURS = 3
_LINE = 400
_BY_SIGNAL = 128  # beyond it an exit status of a shell or a container engine names the signal that ended the program


@frozen
class Clue:
    """Where something points to a cause: the lines from `line` to `last` of those that can tell something.

    `summary` and `remedy`: what it says itself; empty: what the cause's code means.
    """

    code: str
    strength: float
    line: int
    last: int
    summary: str
    remedy: str
    scope: str


@frozen
class Finding:
    """A cause with the clues that point to it, the strongest first."""

    cause: Cause
    clues: tuple[Clue, ...]

    @property
    def first(self) -> int:
        """The first line that points to it."""
        return min(clue.line for clue in self.clues)

    @property
    def last(self) -> int:
        """The last line that points to it."""
        return max(clue.last for clue in self.clues)


@frozen
class Diagnosis:
    """What a log shows. `causes`: the most likely first; `engine`: who wrote it, if that is known; `served`: whether it
    shows that the engine came up; `refused`: how many different lines say that a request was refused or failed;
    `errors`: the last lines that tell of an error, where they show no likely cause."""

    causes: tuple[Cause, ...]
    engine: str | None
    served: bool
    refused: int
    errors: tuple[str, ...] = ()

    @property
    def likely(self) -> tuple[Cause, ...]:
        """The causes that count as found."""
        return tuple(cause for cause in self.causes if cause.confidence >= LIKELY)

    @property
    def went_down(self) -> bool:
        """Whether something kept the engine from coming up, or brought it down."""
        return any(cause.scope == START for cause in self.likely)

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why requests were refused, as codes."""
        return tuple(cause.code for cause in self.likely if cause.scope == REQUEST)

    @property
    def failed(self) -> bool:
        """Whether something is wrong: more than requests refused by an engine that goes on serving."""
        return any(not (self.served and cause.scope == REQUEST) for cause in self.likely)


def diagnose(log: str | Excerpt, backend: str | None = None, facts: Facts | None = None) -> tuple[Cause, ...]:
    """The causes that a log supports, most likely first; empty where nothing supports one.

    `backend`: whose log it is, if known; else the log itself tells. Pure; takes about a second per 10 MB.
    """
    return read(log, backend, facts).causes


def read(log: str | Excerpt, backend: str | None = None, facts: Facts | None = None) -> Diagnosis:
    """What a log shows: the causes as `diagnose` gives them, the engine, and whether it came up.

    Several logs in one are each read by what wrote them.
    """
    taken = excerpt(log) if isinstance(log, str) else log
    lines = taken.lines
    writer = known_as(backend) if backend else written_by(taken.beginning) or written_by("\n".join(lines))
    parts = list(_parts(taken, backend, writer))
    found = _ranked(_gathered([clue for part in parts for clue in part.clues()], lines, facts))
    found = found or weigh(error_lines(lines), topics(), facts, judges=())[:_GUESSES]
    found = [_surer(finding, fitted(finding.cause.confidence)) for finding in found]
    refused = {
        clue.line
        for finding in found
        for clue in finding.clues
        if finding.cause.scope == REQUEST and finding.cause.confidence >= LIKELY
    }
    came_up = max((part.came_up for part in parts), default=-1)
    made = Diagnosis(tuple(_since(finding, parts) for finding in found), writer, came_up >= 0, len(refused))
    return made if made.likely else replace(made, errors=_last_errors(lines, _LAST_ERRORS))


@frozen
class _Part:
    """One of several logs in one: its lines, who wrote it, and where it begins among all lines."""

    lines: tuple[str, ...]
    engine: str | None
    begin: int

    def clues(self) -> list[Clue]:
        """What it shows, by the numbers of all lines."""
        own = [*_clues(Text(self.lines), table(self.engine)), *_read(self.lines, JUDGES)]
        return [replace(clue, line=clue.line + self.begin, last=clue.last + self.begin) for clue in own]

    @cached_property
    def came_up(self) -> int:
        """The last line that says that the engine serves; -1 where none does."""
        serves = fitting(engine_logs()[self.engine].ready, self.lines) if self.engine else []
        return serves[-1] + self.begin if serves else -1

    def overcame(self, finding: Finding) -> bool:
        """Whether the engine came up after all that points to a cause."""
        return self.begin <= finding.last < self.came_up


def _parts(taken: Excerpt, backend: str | None, writer: str | None) -> Iterator[_Part]:
    begin = 0
    for section in taken.sections:
        own = written_by("\n".join(section)) if not backend and len(taken.sections) > 1 else None
        yield _Part(section, own or writer, begin)
        begin += len(section)


def _since(finding: Finding, parts: Sequence[_Part]) -> Cause:
    """The cause; of an engine that came up afterwards it kept no start from ending well."""
    overcome = finding.cause.scope == START and any(part.overcame(finding) for part in parts)
    return replace(finding.cause, scope=WARNING) if overcome else finding.cause


def start_failure(log: str, engine: str, exit_status: int | None, facts: Facts | None = None) -> Cause:
    """Why a start failed: the likeliest cause that its log shows, else what its exit status tells, else `unknown` with
    the log's errors. `exit_status` None: it still runs (stalled); negative: killed by that signal."""
    lines = telling(log)
    found = _findings(lines, table(_speaker(engine, exit_status)), facts)
    for considered in ([finding for finding in found if finding.cause.scope == START], found):
        first = next((finding.cause for finding in _ranked(considered)), None)
        if first and (confidence := fitted(first.confidence)) >= LIKELY:
            return replace(first, confidence=confidence, evidence=_with_neighbours(first.evidence, lines))
    evidence = _last_errors(lines, _UNKNOWN_LINES) or tuple(line.strip() for line in lines[-_UNKNOWN_LINES:])
    return replace(_by_exit_status(exit_status), evidence=evidence)


def _last_errors(lines: Sequence[str], most: int) -> tuple[str, ...]:
    """The last of the lines that tell of an error: engines complain of much at the start that ends none."""
    said = (line for line in error_lines(lines) if not line.endswith("^"))  # which only underlines the one before
    return tuple(line.strip()[:_LINE] for line in list(said)[-most:])


def client_failure(said: str) -> Cause | None:
    """Why docker, podman or the NVIDIA toolkit did not do what was asked; None where their words show no cause."""
    found = next(iter(diagnose(said, "containers")), None)
    return found if found and found.confidence >= LIKELY else None


def _speaker(engine: str, exit_status: int | None) -> str | None:
    """Whose words the log holds: the container client's alone where it says that the container was not started."""
    name = known_as(engine)
    known = engine_logs()[name] if name else None
    return known.client if known and exit_status in known.not_started else name


def _by_exit_status(exit_status: int | None) -> Cause:
    by_signal = exit_status is not None and exit_status > _BY_SIGNAL
    status = _BY_SIGNAL - exit_status if exit_status is not None and by_signal else exit_status
    rows = read_data("exit_statuses")
    row = rows.get("running" if status is None else status, rows["other"])
    return Cause(row["code"], row["summary"], row["remedy"])


def _with_neighbours(evidence: Sequence[str], lines: Sequence[str]) -> tuple[str, ...]:
    """The evidence, and the errors just before and after its first line, which often say more."""
    at = next((number for number, line in enumerate(lines) if line.strip()[:_LINE] == evidence[0]), 0)
    near = [*error_lines(lines[:at])[-_NEIGHBOURS:], *error_lines(lines[at + 1 : at + 1 + _NEIGHBOURS])]
    return tuple(dict.fromkeys([*evidence, *(line.strip()[:_LINE] for line in near)]))


def weigh(
    lines: Sequence[str], known: Table, facts: Facts | None = None, judges: Iterable[Judge] = JUDGES
) -> list[Finding]:
    """What the lines support, by the signatures of a table and by what the judges read from their figures."""
    return _ranked(_findings(lines, known, facts, judges))


def _findings(
    lines: Sequence[str], known: Table, facts: Facts | None = None, judges: Iterable[Judge] = JUDGES
) -> list[Finding]:
    """As `weigh`, each by itself and not yet ranked."""
    return _gathered([*_clues(Text(lines), known), *_read(lines, judges)], lines, facts)


def _gathered(clues: Iterable[Clue], lines: Sequence[str], facts: Facts | None) -> list[Finding]:
    """The clues put together by what they point to."""
    by_code: dict[str, list[Clue]] = {}
    for clue in clues:
        by_code.setdefault(clue.code, []).append(clue)
    return [_finding(code, own, lines, facts) for code, own in by_code.items()]


def _clues(text: Text, known: Table) -> Iterator[Clue]:
    present = known.patterns.present(text.encoded)
    for signature in known.signatures:
        beside = not signature.beside or not present.keys().isdisjoint(signature.beside)
        if beside and present.keys().isdisjoint(signature.unless):
            yield from islice(_of_signature(signature, text, known, present), _MATCHES)


def _of_signature(
    signature: Signature, text: Text, known: Table, present: Mapping[str, Sequence[Lines]]
) -> Iterator[Clue]:
    for pattern in signature.patterns:
        for match in islice(text.matches(pattern, known.patterns, present.get(pattern, ())), _LOOKED_AT):
            line, last = text.span(match)
            here = b"\n".join(text.encoded[line : last + 1])
            if text.heard(line, last, signature.speakers) and not any(
                compiled(other).search(here) for other in signature.unless_here
            ):
                said = defaultdict(str, match.words)  # a pattern need not have every group
                summary, remedy = signature.summary.format_map(said), signature.remedy.format_map(said)
                scope = _scope(signature, text, line, here)
                yield Clue(signature.code, signature.strength, line, last, summary, remedy, scope)


def _scope(signature: Signature, text: Text, line: int, here: bytes) -> str:
    """The signature's own, but of one request where an engine answers that in the line, or tells what ended it."""
    if signature.scope != START:
        return signature.scope
    return REQUEST if compiled(any_pattern("answers")).search(here) or of_request(text.lines, line) else START


def _read(lines: Sequence[str], judges: Iterable[Judge]) -> Iterator[Clue]:
    for judge in judges:
        for seen in judge(lines):
            scope = CAUSES[seen.code].scope
            yield Clue(seen.code, seen.strength, seen.line, seen.line, seen.summary, seen.remedy, scope)


def _finding(code: str, clues: Sequence[Clue], lines: Sequence[str], facts: Facts | None) -> Finding:
    ordered = tuple(sorted(clues, key=lambda clue: (-clue.strength, clue.line)))
    confidence, used = ordered[0].strength, {lines[ordered[0].line]}
    for clue in ordered[1:]:
        if lines[clue.line] not in used:
            used.add(lines[clue.line])
            confidence += (1 - confidence) * _SUPPORT * clue.strength
    confidence = weighed(code, min(confidence, _CERTAIN), facts)
    summary, remedy = _words(code, ordered)
    cause = Cause(code, summary, remedy, _evidence(ordered, lines), confidence, ordered[0].scope)
    return Finding(cause, ordered)


def _words(code: str, ordered: Sequence[Clue]) -> tuple[str, str]:
    """What the strongest clue with words of its own says, else what the code means."""
    told = next((clue for clue in ordered if clue.summary), None)
    return (told.summary.strip(), told.remedy) if told else CAUSES[code][:2]


def _evidence(ordered: Sequence[Clue], lines: Sequence[str]) -> tuple[str, ...]:
    shown: dict[str, None] = {}
    for clue in ordered:
        for line in lines[clue.line : clue.last + 1]:
            shown.setdefault(line.strip()[:_LINE], None)
    return tuple(shown)[:_EVIDENCE]


def _ranked(found: Sequence[Finding]) -> list[Finding]:
    """Causes before their consequences, surer before less sure, and of two equally sure the one seen first."""
    causes = [finding.cause for finding in found]
    roots = [_surer(finding, _as_consequence(finding.cause, causes)) for finding in found]
    roots.sort(key=lambda one: (-round(one.cause.confidence, 1), one.first, -one.cause.confidence))
    ranked: list[Finding] = []
    for finding in roots:
        rivals = (before.cause.confidence for before in ranked if not _of_requests(before.cause, finding.cause))
        room = 1 - _GIVES_WAY * max(rivals, default=0.0)
        ranked.append(_surer(finding, round(finding.cause.confidence * room, 2)))
    return [finding for finding in ranked if finding.cause.confidence >= _WORTH_SAYING]


def _surer(finding: Finding, confidence: float) -> Finding:
    return replace(finding, cause=replace(finding.cause, confidence=confidence))


def _as_consequence(found: Cause, causes: Iterable[Cause]) -> float:
    for other in causes:
        if found.code in _leads_to(other.code) and other.confidence >= LIKELY and not _of_requests(found, other):
            mutual = other.code in _leads_to(found.code)
            if other.confidence > found.confidence or (not mutual and other.confidence >= found.confidence - 0.3):
                return found.confidence * _CONSEQUENCE
    return found.confidence


def _of_requests(one: Cause, other: Cause) -> bool:
    """Whether both say why a request was refused: none of them keeps another request from another fate."""
    return one.scope == other.scope == REQUEST


def _leads_to(code: str) -> frozenset[str]:
    return CAUSES[code].leads_to if code in CAUSES else frozenset()
