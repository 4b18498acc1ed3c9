"""The signatures: each finds its own lines and not its near misses, in time that grows with the log alone."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscli.diagnosis import excerpt, matching, signatures
from mscli.diagnosis.causes import CAUSES, LIKELY, UNKNOWN, any_pattern, read_data
from mscli.diagnosis.diagnose import diagnose, weigh
from mscli.diagnosis.matching import ANYONE, INNERMOST, OTHER, Patterns, compiled, is_fatal, speaker
from mscli.diagnosis.signatures import MECHANISMS, Signature, Table, engine_logs, read_signatures

ENGINES = sorted({name for known in engine_logs().values() for name in known.files})
EVERY = [signature for name in (*MECHANISMS, *ENGINES, "topics") for signature in read_signatures(name)]
OTHERS = {"causes", "engines", "exit_statuses", "noise", "speakers", "fatal", "calibration", "answers"}
WORDS = re.compile(r"(?<!\{)\{(\w*)\}")


def seen(signature: Signature, text: str) -> bool:
    table = Table((signature,), Patterns([*signature.patterns, *signature.beside, *signature.unless]))
    return bool(weigh(text.splitlines(), table, judges=()))


@pytest.mark.parametrize("signature", EVERY, ids=[signature.name for signature in EVERY])
def test_a_signature_finds_its_lines_and_no_near_miss(signature: Signature) -> None:
    assert signature.matches
    assert signature.misses
    assert [text for text in signature.matches if not seen(signature, text)] == []
    assert [text for text in signature.misses if seen(signature, text)] == []


@pytest.mark.parametrize("signature", EVERY, ids=[signature.name for signature in EVERY])
def test_a_signature_is_well_formed(signature: Signature) -> None:
    groups = {name for pattern in signature.patterns for name in compiled(pattern).groupindex}
    named = {match for text in (signature.summary, signature.remedy) for match in WORDS.findall(text)}

    assert signature.code in CAUSES or signature.summary
    assert 0 < signature.strength < 1
    assert bool(signature.summary) == bool(signature.remedy)
    assert {_text(name) for name in groups} >= named
    assert [
        pattern for pattern in signature.patterns if re.search(r"\[[^\]]* [^\]]*\](?<!\\\])", pattern) is None
    ] != []


def test_a_blank_matches_where_a_terminal_wrapped() -> None:
    assert compiled("roles must[- ]alternate").search(b"Roles\n  must\nalternate")
    assert not compiled("roles must").search(b"rolesmust")
    assert compiled(r"a ?b\[ c").search(b"AB[ c")


def test_guesses_stay_below_what_counts_as_found() -> None:
    assert max(signature.strength for signature in read_signatures("topics")) < LIKELY


def test_every_file_is_read() -> None:
    folder = Path(signatures.__file__).with_name("signatures")

    assert {file.stem for file in folder.glob("*.yaml")} == {*MECHANISMS, *ENGINES, "topics", *OTHERS}


def test_an_entry_with_an_unknown_key_or_code_is_refused() -> None:
    with pytest.raises(ValueError, match="patern"):
        signatures._signature("here:1", {"code": "xid", "strength": 0.5, "patern": ["x"]})
    with pytest.raises(ValueError, match="ghost"):
        signatures._signature("here:2", {"code": "ghost", "strength": 0.5, "patterns": ["x"]})


@pytest.mark.parametrize("row", read_data("noise"), ids=lambda row: row["patterns"][0][:30])
def test_what_healthy_engines_write_is_passed_over(row: dict[str, list[str]]) -> None:
    assert [line for line in row["matches"] if excerpt.telling(line)] == []
    assert [line for line in row["misses"] if not excerpt.telling(line)] == []


@pytest.mark.parametrize("row", read_data("speakers"), ids=lambda row: row["speaker"])
def test_a_speaker_is_known_by_its_lines(row: dict[str, list[str]]) -> None:
    assert {speaker([line], 0) for line in row["matches"]} == {row["speaker"]}
    assert row["speaker"] not in {speaker([line], 0) for line in row["misses"]}


def test_what_a_library_says_of_one_request_is_the_word_of_its_server() -> None:
    refused = "aiohttp.client_exceptions.ClientConnectorError: Cannot connect to host 127.0.0.1:9 [Connect call failed]"
    raised = ["Traceback (most recent call last):", '  File "x.py", line 2, in y', "    raise z", refused]

    assert speaker(["ERROR:    Exception in ASGI application", *raised], 4) == "server"
    assert speaker(raised, 3) == "client"
    assert speaker(["ERROR:    Exception in ASGI application", "INFO:     next", *raised], 5) == "client"


def test_signatures_name_speakers_that_exist() -> None:
    known = {row["speaker"] for row in read_data("speakers")} | {INNERMOST, OTHER, ANYONE}

    assert {name for signature in EVERY for name in signature.speakers} <= known


@pytest.mark.parametrize("row", read_data("fatal"), ids=lambda row: row["patterns"][0][:30])
def test_what_no_engine_recovers_from_is_fatal(row: dict[str, list[str]]) -> None:
    assert [line for line in row["matches"] if not is_fatal(line)] == []
    assert [line for line in row["misses"] if is_fatal(line)] == []


@pytest.mark.parametrize("row", read_data("answers"), ids=lambda row: row["patterns"][0][:30])
def test_a_line_that_answers_a_request_is_known(row: dict[str, list[str]]) -> None:
    answer = compiled(any_pattern("answers"))

    assert [line for line in row["matches"] if not answer.search(line.encode())] == []
    assert [line for line in row["misses"] if answer.search(line.encode())] == []


@given(st.lists(st.text("ab x", max_size=6), max_size=8))
def test_lines_are_found_together_as_each_by_itself(lines: list[str]) -> None:
    """A blank in a pattern matches a line break too: what only two lines make together is in none of them."""
    for pattern in ("a b", "^a", "b$", "ab", r"x a"):
        alone = [number for number, line in enumerate(lines) if compiled(pattern).search(line.encode())]
        assert matching.fitting(pattern, lines) == alone


def test_no_line_of_an_engine_that_is_well_is_fatal() -> None:
    healthy = (Path(__file__).parent / "healthy").glob("*.log")

    assert [line for log in healthy for line in log.read_text().splitlines() if is_fatal(line)] == []


def test_what_an_exit_status_tells_is_a_cause_or_unknown() -> None:
    assert {row["code"] for row in read_data("exit_statuses").values()} <= {*CAUSES, UNKNOWN}


def test_patterns_are_matched_in_linear_time() -> None:
    """RE2 takes no pattern that it cannot match in linear time."""
    re2 = pytest.importorskip("re2")

    for signature in EVERY:
        for pattern in (*signature.patterns, *signature.beside, *signature.unless, *signature.unless_here):
            assert isinstance(compiled(pattern), re2._Regexp)


HOSTILE = {
    "one path many times": "/dev/shm" * 500,
    "a long line": "/dev/shm" * 625_000,
    "many long lines": "\n".join(f"{'/dev/shm' * 400} failed to load model error {n}" for n in range(1_500)),
    "a word that begins many patterns": "\n".join(f"failed to open {'CUDA error ' * 300}{n}" for n in range(1_500)),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_log_takes_no_longer_than_any_other(text: str) -> None:
    diagnose("warm")
    begin = time.process_time()
    diagnose(text)

    assert time.process_time() - begin < 1.5 + len(text) / 5e6


def test_without_re2_the_same_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
    with_it = [cause.code for cause in diagnose(line)]
    monkeypatch.setitem(sys.modules, "re2", None)
    for cached in (matching._re2, matching.compiled, signatures.table, signatures.topics):
        cached.cache_clear()
    try:
        assert [cause.code for cause in diagnose(line)] == with_it == ["ecc"]
    finally:
        monkeypatch.undo()
        for cached in (matching._re2, matching.compiled, signatures.table, signatures.topics):
            cached.cache_clear()


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
