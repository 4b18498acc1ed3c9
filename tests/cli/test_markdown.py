"""Markdown on a terminal: blocks that are finished never change, and what is shown holds no sequences of a model's."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mscli.cli.markdown_blocks import LONGEST_BLOCK, Block, Blocks
from mscli.cli.markdown_view import rendered

REPLY = """\
# A heading
Some *text* with `code`, <div>, and
a line that was ended on purpose.

1. one
2. two

   ```sh
   echo "a line of code that is longer than the width of the terminal that it is shown on, by far"
   ```
10. ten

| a | b |
|---|--:|
| x | 1 |

[ref]: http://example.com

```python
def f(x):

    return x
```
After a [link](http://example.com/page).
"""
STYLE = re.compile(r"\x1b\[[0-9;]*m")


def cut(text: str, size: int) -> list[Block]:
    blocks = Blocks()
    found = [block for at in range(0, len(text), size) for block in blocks.feed(text[at : at + size])]
    return [*found, *blocks.end()]


def seen(text: str, width: int = 80) -> str:
    return STYLE.sub("", rendered(text, width))


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_reply_comes_apart_the_same_however_it_arrives(size: int) -> None:
    assert cut(REPLY, size) == cut(REPLY, 2)
    assert [block.text for block in cut(REPLY, size) if block.kind == "code"] == ["def f(x):\n", "\n", "    return x\n"]


MARKS = st.sampled_from(
    ["# ", "- ", "1. ", "> ", "```", "~~~", "|a|b|\n|-|-|\n", "\n", "\n\n", "    ", "---\n", "x", " ", "\t"]
)


@given(st.lists(MARKS | st.text(max_size=5), max_size=30), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_no_letter_of_a_reply_is_lost(parts: list[str], size: int) -> None:
    text = "".join(parts)
    assert "".join(block.text for block in cut(text, size)) == text


def test_what_the_model_wrote_is_shown_whole() -> None:
    shown = "".join(seen(block.text) if block.kind == "markdown" else block.text for block in cut(REPLY, 5))
    for words in (
        "<div>",
        "ended on purpose.",
        "by far",
        "10. ten",
        "[ref]: http://example.com",
        "http://example.com/page",
    ):
        assert words in shown
    assert "    return x\n" in shown
    assert not re.search(r" +$", shown, re.MULTILINE), "blanks at a line's end are copied with it"


@pytest.mark.parametrize("text", ["408.", "-", "#", ">", "* ", "1.\n2. b", "- a\n-", "```\n```", "|a|\n|-|"])
def test_a_reply_of_marks_alone_is_not_shown_as_nothing(text: str) -> None:
    shown = "".join(seen(block.text) if block.kind == "markdown" else block.text for block in cut(text, 3))
    assert shown.strip()
    assert all(word in shown for word in re.findall(r"\w+", text))


def test_an_address_is_shown_once_and_a_link_with_its_address() -> None:
    assert (
        seen("See <http://a.example> and [b](http://b.example).") == "See http://a.example and b (http://b.example).\n"
    )


@pytest.mark.parametrize("width", [20, 40, 80])
def test_lines_fit_but_for_code(width: int) -> None:
    shown = [seen(block.text, width) for block in cut(REPLY, 5) if block.kind == "markdown"]
    assert all(
        len(line) <= width for text in shown for line in text.split("\n") if "echo" not in line and "http" not in line
    )


@given(st.text() | st.sampled_from(["&#27;[2J", "[a](\x1b]8;;x\x07)", "`\x9b2J`", "&#x9b;2J", "```\n\x1b[2J\n```"]))
@settings(deadline=None)
def test_no_reply_steers_the_terminal(text: str) -> None:
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", seen(text))


def test_a_block_without_end_is_shown_as_text_and_costs_little() -> None:
    blocks = Blocks()
    text = "word " * 200_000
    found = [block for at in range(0, len(text), 5) for block in blocks.feed(text[at : at + 5])]
    assert {block.kind for block in found} == {"plain"}
    assert len(blocks.rest) <= LONGEST_BLOCK
    assert "".join(block.text for block in [*found, *blocks.end()]) == text
