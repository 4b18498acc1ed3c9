"""The truncation alarm: what was sent against what was evaluated."""

from __future__ import annotations

import pytest

from mscli.chat.message import least_prompt_tokens, least_tokens, truncation


def test_a_server_that_evaluated_fewer_tokens_than_words_were_sent_has_cut_the_prompt() -> None:
    cut = truncation(91541, 2048)
    assert cut is not None
    assert (cut.sent_tokens, cut.evaluated_tokens) == (91541, 2048)


@pytest.mark.parametrize("evaluated", [100, 131, None, 0])
def test_more_tokens_than_words_or_no_count_at_all_is_no_alarm(evaluated: int | None) -> None:
    assert truncation(100, evaluated) is None


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("", 0),
        ("The weather in Paris is sunny.", 6),
        ("12 + 34", 4),
        ("====================", 0),
        ("    \n\n\t", 0),
        ("snake_case and CamelCase", 4),
        ("cafe\u0301 nai\u0308ve", 2),
        ("\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", 2),
        ("\u4f60\u597d", 1),
    ],
)
def test_words_and_digits_are_counted_and_nothing_that_a_tokenizer_may_merge(text: str, least: int) -> None:
    assert least_tokens(text) == least


def test_the_text_of_a_conversation_counts_wherever_it_stands_and_images_do_not() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA BBBB"}}
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    assert least_prompt_tokens(said) == 5
