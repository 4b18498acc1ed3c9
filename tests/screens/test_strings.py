"""Every text that a user can see, whether or not a screen shows it: none uses a phrase of the table."""

from __future__ import annotations

from support.phrases import phrases_in
from support.screens import strings


def test_no_text_uses_a_phrase_of_the_table() -> None:
    found = [
        f"{where}: {phrase!r}: say {better!r}"
        for where, text in strings.every()
        for _, phrase, better in phrases_in(text)
    ]
    assert found == []


def test_texts_of_every_kind_are_found() -> None:
    places = " ".join(where for where, _ in strings.every())
    assert all(kind in places for kind in ("mscli/cli/", "signatures/", "profiles/", "--help", "mscli/engines/"))
