"""What goes along with a prompt: images, a schema; and what does not fit is told before it is sent."""

from __future__ import annotations

import json
from pathlib import Path

from support.chat.scripted import reply, scripted
from support.run_mscli import Mscli

PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def test_a_schema_is_sent_and_the_answer_checked(mscli: Mscli, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "person.json"
    path.write_text(json.dumps(PERSON))
    with scripted(home, reply('{"age": 3}'), reply('{"age": 3}'), reply('{"age": "3"}')) as model:
        assert mscli("chat", "how old?", "--schema", str(path)).out == '{"age": 3}\n'
        assert model.asked[0]["response_format"]["json_schema"]["schema"] == PERSON
        assert mscli("chat", "how old?", "--schema", str(path), "--json").data["answer"] == {"age": 3}
        wrong = mscli("chat", "how old?", "--schema", str(path))
    assert wrong.code == 1
    assert "data.age must be integer" in wrong.err


def test_a_prompt_that_cannot_fit_is_told_and_not_sent(mscli: Mscli, home: Path) -> None:
    with scripted(home, reply("Yes.", prompt_tokens=4000), context=1000) as model:
        refused = mscli("chat", "summarize", stdin="word " * 2000)
        assert model.asked == []
        likely = mscli("chat", "summarize", stdin="considerably " * 400)
    assert refused.code == 1
    assert "at least 2,001 tokens, the context holds 1,000; nothing was sent" in refused.err
    assert "tail -c 3" in refused.err
    assert likely.code == 0
    assert "it may not fit" in likely.err
