"""Streams as servers really send them, and as no server should: a reply, or a clear word of what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.chat.streams import STOP, chunk, event, serving, stopped
from support.instances.instance_records import write_record
from support.run_mscli import Mscli

from mscli.chat.message import user
from mscli.chat.reply import Reply, Target, ask
from mscli.chat.stream import BadStream, deltas
from mscli.errors import Code, MscliError
from mscli.instances.records import Records
from mscli.paths import Places

HELLO = chunk({"content": "Hello"})
# shape -> (what is sent, a word of the message)
BROKEN: dict[str, tuple[str, str]] = {
    "bad JSON": (stopped(HELLO, 'data: {"choices": [\n\n'), "not JSON"),
    "plain text": ("data: Prompt sequence length is greater than 4096\n\ndata: [DONE]\n\n", "not JSON"),
    "a page of HTML": ("<html>\n<body>Bad gateway</body></html>", "did not send an event stream"),
    "a whole JSON answer": ('{"choices": [{"message": {"content": "Hello"}}]}', "did not send an event stream"),
    "no event": ("", "no event"),
    "only [DONE]": ("data: [DONE]\n\n", "no event"),
    "only comments": (": ping\n\n: ping\n\n", "no event"),
    "an end without finish_reason": (HELLO + "data: [DONE]\n\n", "was cut off"),
    "a cut": (HELLO + 'data: {"choi', "not JSON"),
    "an abort": (stopped(HELLO).replace('"stop"', '"abort"'), "was cut off"),
    "an event that is a list": ("data: [1, 2]\n\n", "not an object"),
    "choices that are an object": (event(choices={"0": 1}), "not a list"),
    "a choice that is text": (event(choices=["Hello"]), "not an object"),
    "a delta that is text": (stopped(chunk("Hello")), "not an object"),
    "content that is a list": (stopped(chunk({"content": [{"type": "text", "text": "Hello"}]})), "not text"),
    "usage that is text": (stopped(HELLO, event(choices=[], usage="9 tokens")), "usage is not an object"),
    "a token count that is text": (stopped(HELLO, event(choices=[], usage={"prompt_tokens": "9"})), "token count"),
    "a negative token count": (stopped(HELLO, event(choices=[], usage={"prompt_tokens": -9})), "token count"),
    "arguments that are an object": (
        stopped(chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": {"a": 1}}}]})),
        "arguments is not text",
    ),
    "an index that is text": (stopped(chunk({"tool_calls": [{"index": "a", "function": {"name": "f"}}]})), "index"),
    "a call without a name": (stopped(chunk({"tool_calls": [{"function": {"arguments": "{}"}}]})), "no name"),
    "calls that are text": (stopped(chunk({"tool_calls": "f()"})), "not a list"),
    "a lone surrogate": ('data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n' + stopped(), "Unicode"),
    "an error as text": (HELLO + event(error="CUDA out of memory"), "reported an error"),
    "an error as an object": (HELLO + event(error={"message": "CUDA out of memory"}), "reported an error"),
    "an empty reply": (stopped(), "empty"),
    "a finish_reason that is a number": (chunk({"content": "Hello"}, 1), "not text"),
    "endless nesting": (f"data: {'[' * 100_000}\n\n", "not JSON"),
}


def asked(body: str) -> Reply:
    with serving(body) as target:
        return ask(target, [user("Hi")], lambda _: None)


@pytest.mark.parametrize("shape", BROKEN)
def test_a_broken_stream_is_a_failed_request_that_says_what_is_wrong(shape: str) -> None:
    body, word = BROKEN[shape]
    with pytest.raises(MscliError) as raised:
        asked(body)
    assert raised.value.code == Code.REQUEST_FAILED
    assert word in raised.value.message
    assert raised.value.hint


def test_what_had_come_of_a_reply_is_kept() -> None:
    with pytest.raises(MscliError) as raised:
        asked(HELLO + chunk({"content": " there"}))
    assert raised.value.details["text"] == "Hello there"


def test_the_servers_own_words_are_the_evidence() -> None:
    with pytest.raises(MscliError) as raised:
        asked("data: Prompt sequence length is greater than 4096\n\n")
    assert raised.value.details["evidence"] == ["Prompt sequence length is greater than 4096"]


GOOD: dict[str, str] = {
    "as vLLM": stopped(chunk({"role": "assistant", "content": ""}), HELLO, event(choices=[], usage=None)),
    "without [DONE]": HELLO + event(**STOP),
    "with carriage returns": stopped(HELLO).replace("\n", "\r\n"),
    "with comments, names and ids": ": ping\n\nevent: x\nid: 1\nretry: 5\n" + stopped(HELLO),
    "without a blank after the colon": stopped(HELLO).replace("data: ", "data:"),
    "an error that is null": stopped(HELLO, event(choices=[], error=None)),
    "usage with further fields": stopped(HELLO, event(choices=[], usage={"prompt_tokens": 3, "x": {"y": 1}})),
}


@pytest.mark.parametrize("shape", GOOD)
def test_a_stream_of_any_known_server_is_a_reply(shape: str) -> None:
    reply = asked(GOOD[shape])
    assert (reply.text, reply.finish_reason) == ("Hello", "stop")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["content", "reasoning", "tool_calls", "role", "function"])


@given(
    delta=st.dictionaries(FIELDS, VALUES, max_size=3) | VALUES,
    usage=VALUES,
    finish=VALUES,
    cut=st.integers(0, 400),
)
def test_whatever_is_sent_is_read_or_refused(delta: object, usage: object, finish: object, cut: int) -> None:
    body = (chunk(delta, finish, usage=usage) + stopped()).encode()
    for sent in (body, body[:cut]):
        with suppress(BadStream):
            texts = [each.text + each.reasoning for each in deltas([sent[:50], sent[50:]])]
            assert "".join(texts).encode() is not None, "text that no stream can take"


@given(st.binary(max_size=300), st.integers(1, 20))
def test_bytes_of_any_kind_never_break_the_reader(noise: bytes, at: int) -> None:
    with suppress(BadStream):
        assert all(isinstance(each.text, str) for each in deltas([noise[:at], noise[at:]]))


def test_an_endless_line_is_given_up() -> None:
    def endless() -> Iterator[bytes]:
        yield b"data: "
        while True:
            yield b"x" * 2**20

    with pytest.raises(BadStream, match="more than a reply can hold"):
        list(deltas(endless()))


@pytest.fixture
def instance(home: Path) -> Callable[[Target], None]:
    """Records a server as a running instance of the user's."""

    def record(target: Target) -> None:
        records = Records(Places(home / "config", home / "state", home / "data"))
        port = int(target.base_url.split(":")[2].partition("/")[0])
        write_record(records, "mine", None, "none", owner="a test", port=port, stand_in=False)

    return record


@pytest.mark.parametrize("shape", ["plain text", "a page of HTML", "no event", "a lone surrogate"])
def test_the_user_sees_a_failed_request_and_no_fault_of_mscli(
    shape: str, mscli: Mscli, instance: Callable[[Target], None]
) -> None:
    with serving(BROKEN[shape][0]) as target:
        instance(target)
        ran, scripted = mscli("chat", "hello"), mscli("chat", "hello", "--json")
    assert (ran.code, scripted.error["code"]) == (1, "request_failed")
    assert BROKEN[shape][1] in ran.err
    assert "internal error" not in ran.err
