"""Answers that follow a schema: asked for in each engine's way, and checked whatever the engine did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mscli.chat.message import Schema, schema_in, system, user
from mscli.errors import Code, MscliError

PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm", "ollama", "mistralrs"])
def test_an_engine_that_takes_a_schema_is_given_it(engine: str) -> None:
    schema = Schema(PERSON, "it")
    assert schema.fields(engine)["response_format"]["json_schema"]["schema"] == PERSON
    assert schema.messages(engine, [user("hi")]) == [user("hi")]


def test_transformers_is_asked_in_words() -> None:
    schema = Schema(PERSON, "it")
    assert schema.fields("transformers") == {}
    first, *others = schema.messages("transformers", [system("Be brief."), user("hi")])
    assert first["content"].startswith("Be brief.\n\nAnswer with JSON")
    assert json.dumps(PERSON) in first["content"]
    assert others == [user("hi")]
    assert [each["role"] for each in schema.messages("transformers", [user("hi")])] == ["system", "user"]


@pytest.mark.parametrize("text", ['{"age": 3}', '```json\n{"age": 3}\n```', ' \n{"age": 3}\n'])
def test_an_answer_that_follows_it_is_taken(text: str) -> None:
    assert Schema(PERSON, "it").parsed(text) == {"age": 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"age": "3"}', "data.age must be integer"),
        ("{}", "must contain ['age']"),
        ("Three.", "not JSON"),
        ("[" * 9999, ""),
    ],
)
def test_an_answer_that_does_not_is_refused_with_the_place(text: str, words: str) -> None:
    with pytest.raises(MscliError) as raised:
        Schema(PERSON, "it").parsed(text)
    assert raised.value.code == Code.REQUEST_FAILED
    assert words in raised.value.message
    assert raised.value.details["text"] == text


@pytest.mark.parametrize(
    "content",
    ["no JSON", "[1]", '{"type": "nonsense"}', '{"$ref": "http://127.0.0.1:1/x"}', '{"pattern": "("}', "\x00"],
)
def test_what_is_no_schema_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(content)
    with pytest.raises(MscliError) as raised:
        schema_in(path)
    assert raised.value.code == Code.USAGE
    assert str(path) in raised.value.message
