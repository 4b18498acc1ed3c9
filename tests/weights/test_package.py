"""Weights that ship inside mscli."""

from __future__ import annotations

import dataclasses

import pytest
from support.weights.pulls import Heard, model

from mscli.errors import Code, MscliError
from mscli.weights.ensure import ensure, wanted


def test_packaged_weights_are_there_and_of_the_stated_size() -> None:
    variant = model().variants["q8_0"]
    files = ensure(model(), variant, Heard())
    assert files.bytes_on_disk == variant.download_bytes
    assert files.model.endswith(variant.source.files[0])
    assert files.projector is not None
    assert wanted(model(), variant).missing_bytes == 0


@pytest.mark.parametrize(
    ("size", "file", "cause"), [(1, None, "corrupt_weights"), (None, "none.gguf", "model_not_found")]
)
def test_packaged_weights_that_are_not_whole(size: int | None, file: str | None, cause: str) -> None:
    variant = model().variants["q8_0"]
    source = dataclasses.replace(variant.source, files=(file,)) if file else variant.source
    changed = dataclasses.replace(variant, source=source, download_bytes=size or variant.download_bytes)
    with pytest.raises(MscliError) as raised:
        ensure(model(), changed, Heard())
    assert (raised.value.code, raised.value.details["cause"]) == (Code.WEIGHTS_MISSING, cause)


def test_ollama_pulls_by_itself() -> None:
    variant = model().variants["q8_0"]
    source = dataclasses.replace(variant.source, kind="ollama")
    with pytest.raises(MscliError) as raised:
        ensure(model(), dataclasses.replace(variant, source=source), Heard())
    assert raised.value.code == Code.ENGINE_UNSUPPORTED
