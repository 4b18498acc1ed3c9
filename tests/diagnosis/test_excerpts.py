"""Every code of the closed list is named from what drivers, hubs and engines write."""

from __future__ import annotations

import pytest
from support.diagnosis.excerpts import EXCERPTS
from support.diagnosis.field import FIELD

from mscli.diagnosis.causes import CAUSES
from mscli.diagnosis.diagnose import diagnose
from mscli.diagnosis.signatures import MECHANISMS, read_signatures

ALL = [(code, text) for code, texts in EXCERPTS.items() for text in texts] + list(FIELD)


@pytest.mark.parametrize(("code", "text"), ALL, ids=[f"{code}-{n}" for n, (code, _) in enumerate(ALL)])
def test_the_cause_comes_first(code: str, text: str) -> None:
    found = diagnose(text)

    assert found, "unknown"
    assert found[0].code == code, [(finding.code, finding.confidence) for finding in found]
    assert found[0].evidence
    assert found[0].summary
    assert found[0].remedy


def test_every_code_has_words_signatures_and_two_excerpts() -> None:
    signed = {signature.code for name in MECHANISMS for signature in read_signatures(name)}

    assert len(CAUSES) == 65
    assert set(EXCERPTS) == set(CAUSES)
    assert signed == set(CAUSES)
    assert [code for code, texts in EXCERPTS.items() if len(texts) < 2] == []


def test_what_a_cause_leads_to_is_a_cause() -> None:
    assert {code for meaning in CAUSES.values() for code in meaning.leads_to} <= set(CAUSES)
