"""Every code of the closed list is named from what drivers, hubs and engines write."""

from __future__ import annotations

import pytest
from support.diagnosis.excerpts import EXCERPTS
from support.diagnosis.field import FIELD

from mscli.diagnosis.causes import CAUSES, LEADS_TO
from mscli.diagnosis.diagnose import diagnose
from mscli.diagnosis.tables import ENGINES, MECHANISMS

ALL = [(code, text) for code, texts in EXCERPTS.items() for text in texts] + list(FIELD)


@pytest.mark.parametrize(("code", "text"), ALL, ids=[f"{code}-{n}" for n, (code, _) in enumerate(ALL)])
def test_the_cause_comes_first(code: str, text: str) -> None:
    found = diagnose(text)

    assert found, "unknown"
    assert found[0].code == code, [(finding.code, finding.confidence) for finding in found]
    assert found[0].evidence
    assert found[0].summary
    assert found[0].remedy


def test_every_code_has_words_signs_and_two_excerpts() -> None:
    signed = {sign.code for sign in MECHANISMS}

    assert len(CAUSES) == 64
    assert set(EXCERPTS) == set(CAUSES)
    assert signed == set(CAUSES)
    assert [code for code, texts in EXCERPTS.items() if len(texts) < 2] == []


def test_tables_name_codes_of_the_list_only() -> None:
    named = {sign.code for table in ENGINES.values() for sign in table}
    led = {code for codes in LEADS_TO.values() for code in codes} | set(LEADS_TO)

    assert named - set(CAUSES) == set()
    assert led - set(CAUSES) == set()


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_engines_words_fill_in_what_the_line_says(engine: str) -> None:
    for sign in ENGINES[engine]:
        for words in (sign.summary, sign.remedy):
            assert "{" not in words.format(**_groups(sign.pattern)), sign


def _groups(pattern: str) -> dict[str, str]:
    import re

    return dict.fromkeys(re.compile(pattern).groupindex, "x")
