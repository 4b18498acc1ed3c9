"""A hub that lies: whatever it names, nothing outside the repository's own folder is written or read."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from support.hub import Hub
from support.weights.pulls import GGUF, QUICK, REPOSITORY, Heard, content, model, pull, variant

from mscli.errors import Code, MscliError
from mscli.weights.cache import cache as cache_in
from mscli.weights.ensure import wanted
from mscli.weights.local_folder import length_fault
from mscli.weights.stored import copy_to

WEIGHTS = content(300_000)


def outside(tmp_path: Path, cache: Path) -> set[Path]:
    """Every file below the test's folder that does not lie in the repository's own folders of the cache."""
    own = [cache / f"models--{REPOSITORY.replace('/', '--')}", cache / ".locks", tmp_path / "user"]
    files = (path for path in tmp_path.rglob("*") if path.is_file())
    return {path for path in files if not any(path.is_relative_to(folder) for folder in own)}


@pytest.mark.parametrize(
    "sha", ["../../../../outside", "/tmp/outside", "0" * 39, "0" * 40 + "/../../../../x", "main", "", "A" * 40]
)
def test_a_commit_that_is_none_is_refused(hub: Hub, cache: Path, tmp_path: Path, sha: str) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    hub.repositories[REPOSITORY].commit = sha
    before = outside(tmp_path, cache)
    with pytest.raises(MscliError) as raised:
        pull()
    assert raised.value.code == Code.DOWNLOAD_FAILED
    assert outside(tmp_path, cache) == before, "the hub's commit was written to another folder"


@pytest.mark.parametrize(
    "name",
    ["../../../../evil.gguf", "/tmp/evil.gguf", "a/../../../../evil.gguf", "a//evil.gguf", "./evil.gguf", "a\0b.gguf"],
)
def test_a_file_name_that_leads_out_is_refused(hub: Hub, cache: Path, tmp_path: Path, name: str) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS, name: WEIGHTS})
    before = outside(tmp_path, cache)
    with pytest.raises(MscliError) as raised:
        pull("*.gguf")
    assert raised.value.code == Code.DOWNLOAD_FAILED
    assert outside(tmp_path, cache) == before


@pytest.mark.parametrize("size", [-1, 1 << 70])
def test_a_size_that_no_file_has_is_refused(hub: Hub, size: int) -> None:
    found = hub.add(REPOSITORY, {GGUF: WEIGHTS})
    found.files[GGUF] = replace(found.files[GGUF], size=size)
    with pytest.raises(MscliError) as raised:
        pull()
    assert raised.value.code == Code.DOWNLOAD_FAILED


def test_bytes_are_never_taken_from_a_file_of_this_machine(hub: Hub, tmp_path: Path) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    secret = tmp_path / "cdn"
    secret.mkdir()
    hub.cdn_url = tmp_path.as_uri()
    with pytest.raises(MscliError) as raised:
        pull(timeouts=replace(QUICK, retry_s=0.5))
    assert "not HTTP" in raised.value.message


@pytest.mark.parametrize("kept", ["../../../../outside", "0" * 39, "\0", "é" * 40])
def test_a_remembered_branch_that_names_no_commit_counts_as_never_looked_up(hub: Hub, cache: Path, kept: str) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    pull()
    next(cache.glob("models--*/refs/main")).write_text(kept)
    assert cache_in(cache).commit(REPOSITORY, "main") is None
    assert wanted(model(), variant()).whole


def test_a_remembered_listing_with_a_name_that_leads_out_is_asked_for_anew(hub: Hub, cache: Path) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    pull()
    listing = next(cache.glob("models--*/mscli/*.json"))
    entries = json.loads(listing.read_text())
    listing.write_text(json.dumps([*entries, {**entries[0], "name": "../../../../evil.gguf"}]))
    assert [file.remote.name for file in wanted(model(), variant("*.gguf")).files] == [GGUF]


@pytest.mark.parametrize("revision", ["../../../../outside", "/tmp/outside", "a//b"])
def test_a_revision_that_leads_out_is_refused(hub: Hub, cache: Path, tmp_path: Path, revision: str) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    before = outside(tmp_path, cache)
    with pytest.raises(MscliError, match="is not a valid revision"):
        pull(revision=revision)
    with pytest.raises(MscliError, match="is not a valid revision"):
        copy_to(variant(revision=revision), tmp_path / "disk", Heard(), timeouts=QUICK)
    assert outside(tmp_path, cache) == before


def test_a_listing_nested_without_end_is_asked_for_anew(hub: Hub, cache: Path) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    pull()
    next(cache.glob("models--*/mscli/*.json")).write_text("[" * 300_000)
    assert wanted(model(), variant()).whole


def test_a_header_nested_without_end_is_a_header_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 300_000) + b"[" * 300_000)
    assert "unreadable header" in (length_fault(path) or "")
