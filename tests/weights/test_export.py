"""Machines without a network: weights that were pulled before, or brought by disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.hub import Hub
from support.weights.pulls import GGUF, QUICK, REPOSITORY, Heard, content, model, pull, variant, whole

from mscli.errors import Code, MscliError
from mscli.weights.ensure import ensure, wanted
from mscli.weights.progress import WeightFiles
from mscli.weights.stored import copy_to

WEIGHTS = content(2_500_000)
CONFIG = b'{"layers": 40}'


@pytest.fixture
def published(hub: Hub) -> Hub:
    hub.add(REPOSITORY, {GGUF: WEIGHTS, "config.json": CONFIG})
    return hub


def brought(folder: Path, *files: str, listener: Heard | None = None) -> WeightFiles:
    """Weights as `mscli up --weights DIR` finds them, with no hub to ask."""
    return ensure(model(), variant(*(files or (GGUF, "config.json"))), listener or Heard(), folder=folder)


def lacking(folder: Path | None = None) -> MscliError:
    with pytest.raises(MscliError) as raised:
        ensure(model(), variant(GGUF, "config.json"), Heard(), offline=True, folder=folder)
    return raised.value


def test_weights_are_copied_from_the_cache_and_serve_as_they_lie(published: Hub, tmp_path: Path) -> None:
    pull(GGUF, "config.json")
    published.forget_counts()
    disk = tmp_path / "disk"
    copied = copy_to(variant(GGUF, "config.json"), disk, Heard(), timeouts=QUICK)
    assert copied.whole
    assert published.requests == [], "a copy of what is here asked the hub"
    files = brought(disk)
    assert whole(files.model, WEIGHTS)
    assert Path(files.model).is_relative_to(disk)
    assert files.bytes_on_disk == len(WEIGHTS) + len(CONFIG)


def test_what_is_not_here_is_fetched_straight_to_the_disk(published: Hub, tmp_path: Path, cache: Path) -> None:
    pull("config.json", GGUF)
    next(cache.glob("*/snapshots/*/*.gguf")).resolve().unlink()
    copy_to(variant(GGUF, "config.json"), tmp_path / "disk", Heard(), timeouts=QUICK)
    assert whole(brought(tmp_path / "disk").model, WEIGHTS)
    assert not list(cache.glob("*/blobs/*.incomplete")), "the cache was filled though the disk was asked for"


def test_carried_folder_is_a_cache_for_other_tools(published: Hub, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    copy_to(variant(GGUF, "config.json"), tmp_path / "disk", Heard(), timeouts=QUICK)
    there = snapshot_download(REPOSITORY, cache_dir=tmp_path / "disk", local_files_only=True)
    assert whole(Path(there) / GGUF, WEIGHTS)


def test_damaged_file_is_not_carried(published: Hub, tmp_path: Path) -> None:
    blob = Path(pull(GGUF, "config.json").model).resolve()
    blob.write_bytes(WEIGHTS[:-1] + b"?" if WEIGHTS[-1:] != b"?" else WEIGHTS[:-1] + b"!")
    with pytest.raises(MscliError) as raised:
        copy_to(variant(GGUF, "config.json"), tmp_path / "disk", Heard(), timeouts=QUICK)
    assert raised.value.details["cause"] == "corrupt_weights"
    assert "--verify" in raised.value.hint
    assert lacking(tmp_path / "disk").details["cause"] == "offline"


def test_plain_folder_serves_with_its_headers_checked(tmp_path: Path, hub: Hub) -> None:
    shipped = Path(ensure(model(), model().variants["q8_0"], Heard()).model)
    (tmp_path / GGUF).write_bytes(shipped.read_bytes())
    heard = Heard()
    assert brought(tmp_path, GGUF, listener=heard).model == str(tmp_path / GGUF)
    assert heard.codes == ["unchecked"]
    (tmp_path / GGUF).write_bytes(shipped.read_bytes()[:-4096])
    with pytest.raises(MscliError) as raised:
        brought(tmp_path, GGUF)
    assert raised.value.details["cause"] == "corrupt_weights"
    assert "ends after" in raised.value.message


def test_clone_without_lfs_is_recognised(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / GGUF).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 14326\n")
    with pytest.raises(MscliError, match="LFS pointer"):
        brought(tmp_path, GGUF)


def test_split_file_of_which_a_part_is_missing(tmp_path: Path, hub: Hub) -> None:
    shipped = Path(ensure(model(), model().variants["q8_0"], Heard()).model).read_bytes()
    (tmp_path / "small-00001-of-00002.gguf").write_bytes(shipped)
    with pytest.raises(MscliError, match="small-00002-of-00002"):
        brought(tmp_path, "small-*.gguf")


def test_folder_without_weights_is_named(tmp_path: Path, hub: Hub) -> None:
    error = lacking(tmp_path)
    assert (error.code, error.details["cause"]) == (Code.WEIGHTS_MISSING, "offline")
    assert str(tmp_path) in error.message


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_offline_serves_what_is_here_and_asks_nobody(published: Hub, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    files = pull(GGUF, "config.json")
    published.forget_counts()
    if by == "environment":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = ensure(model(), variant(GGUF, "config.json"), Heard(), offline=by == "argument")
    assert again == files
    assert published.requests == []


def test_offline_without_weights_says_how_to_get_them(published: Hub) -> None:
    error = lacking()
    assert (error.code, error.details["cause"]) == (Code.WEIGHTS_MISSING, "offline")
    assert "mscli pull --to" in error.hint
    assert published.requests == []


def test_offline_tells_how_much_is_missing(published: Hub) -> None:
    wanted(model(), variant(GGUF, "config.json"))
    assert f"{len(WEIGHTS) + len(CONFIG):,} bytes" in lacking().message


@pytest.mark.parametrize("network", ["switched off", "down"])
def test_what_other_tools_fetched_serves_without_a_network(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    from huggingface_hub import snapshot_download

    shipped = Path(ensure(model(), model().variants["q8_0"], Heard()).model).read_bytes()
    hub.add(REPOSITORY, {GGUF: shipped})
    snapshot_download(REPOSITORY, cache_dir=cache, endpoint=hub.url)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    heard = Heard()
    files = ensure(model(), variant(), heard, offline=network == "switched off", timeouts=QUICK)
    assert whole(files.model, shipped)
    assert "unchecked" in heard.codes
