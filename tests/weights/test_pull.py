"""Weights arrive whole, once, where every other tool finds them; nothing more than the engine needs is fetched."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from support import SUPPORT
from support.hub import Hub
from support.weights.pulls import GGUF, QUICK, REPOSITORY, Heard, content, model, pull, variant, whole

from mscli.errors import Code, MscliError
from mscli.weights.ensure import ensure, wanted
from mscli.weights.from_hub import newest
from mscli.weights.progress import Progress

WEIGHTS = content(3_500_000)


def test_pull_fetches_every_byte_once_and_gives_the_engine_its_file(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS, "mmproj.gguf": content(40_000), "README.md": b"read me", "config.json": b"{}"})
    files = pull(GGUF, "config.json", projector="mmproj.gguf")
    assert whole(files.model, WEIGHTS), "the file the engine is given is not the one on the hub"
    assert files.projector is not None
    assert files.projector.endswith("mmproj.gguf")
    assert files.bytes_on_disk == len(WEIGHTS) + 40_000 + 2
    assert hub.bytes_sent_twice(GGUF) == 0
    assert hub.sent_bytes("README.md") == 0, "a file that the variant does not ask for was fetched"


def test_second_pull_asks_the_hub_nothing(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    first = pull()
    hub.forget_counts()
    assert pull() == first
    assert hub.requests == [], "with everything in place, the hub was asked all the same"


def test_weights_in_place_are_found_without_the_hub_library(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    pull()
    pulled = "import sys; from support.weights.pulls import pull; pull()"
    program = f"{pulled}; print('huggingface_hub' in sys.modules, 'httpx' in sys.modules)"
    tests = SUPPORT.parent
    done = subprocess.run([sys.executable, "-c", program], cwd=tests, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"], "`mscli up` pays for imports that it does not need"


def test_other_tools_find_what_was_pulled(hub: Hub, cache: Path) -> None:
    from huggingface_hub import scan_cache_dir, snapshot_download

    hub.add(REPOSITORY, {GGUF: WEIGHTS, "config.json": b"{}"})
    files = pull(GGUF, "config.json")
    hub.forget_counts()
    there = snapshot_download(REPOSITORY, cache_dir=cache, endpoint=hub.url)
    assert Path(files.model) == Path(there) / GGUF
    assert hub.sent_bytes(GGUF) == 0, "huggingface_hub fetched again what mscli had put into the cache"
    scanned = scan_cache_dir(cache)
    assert scanned.warnings == []
    assert [repo.repo_id for repo in scanned.repos] == [REPOSITORY]


def test_what_other_tools_fetched_is_not_fetched_again(hub: Hub, cache: Path) -> None:
    from huggingface_hub import snapshot_download

    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    snapshot_download(REPOSITORY, cache_dir=cache, endpoint=hub.url)
    hub.forget_counts()
    assert whole(pull().model, WEIGHTS)
    assert hub.sent_bytes(GGUF) == 0


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("safetensors-mistral", {"consolidated.safetensors"}), ("safetensors-hf", {"model-00001-of-00001.safetensors"})],
)
def test_weights_that_lie_there_twice_are_fetched_once(hub: Hub, layout: str, expected: set[str]) -> None:
    both = {"consolidated.safetensors": content(20_000, 2), "model-00001-of-00001.safetensors": content(20_000, 3)}
    hub.add(REPOSITORY, {**both, "config.json": b"{}"})
    folder = Path(pull("*.safetensors", "config.json", layout=layout).model)
    assert {path.name for path in folder.iterdir()} == {*expected, "config.json"}


def test_listing_tells_exact_bytes_before_the_first_one(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS, "config.json": b"{}"})
    listing = wanted(model(), variant(GGUF, "config.json"))
    assert (listing.total_bytes, listing.missing_bytes) == (len(WEIGHTS) + 2, len(WEIGHTS) + 2)
    sums = {file.remote.name: file.remote.sha256 for file in listing.files}
    assert sums == {GGUF: hashlib.sha256(WEIGHTS).hexdigest(), "config.json": None}
    pull(GGUF, "config.json")
    assert wanted(model(), variant(GGUF, "config.json")).missing_bytes == 0


def test_progress_never_goes_back_and_ends_at_the_whole(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    hub.rate = 1_500_000
    heard = Heard()
    pull(listener=heard)
    done = [look.done_bytes for look in heard.looks if look.stage == "downloading"]
    assert len(done) > 1
    assert done == sorted(done)
    assert heard.looks[-1].stage == "done"
    assert heard.looks[-1].done_bytes == heard.looks[-1].total_bytes == len(WEIGHTS)
    assert heard.codes == [], f"a pull without a fault told of one: {heard.notes}"


def test_pinned_commit_is_what_is_fetched(hub: Hub) -> None:
    pinned = hub.add(REPOSITORY, {GGUF: WEIGHTS}).commit
    assert f"/snapshots/{pinned}/" in pull(revision=pinned).model
    assert newest(variant(revision=pinned)) == pinned


def test_branch_stays_at_the_commit_it_had_until_it_is_looked_up_on_purpose(hub: Hub) -> None:
    first = hub.add(REPOSITORY, {GGUF: WEIGHTS}).commit
    pull()
    second = hub.add(REPOSITORY, {GGUF: content(50_000, 9)}).commit
    assert f"/snapshots/{first}/" in pull().model, "new weights came without being asked for"
    assert newest(variant()) == second
    assert f"/snapshots/{second}/" in pull(revision=second).model


@pytest.mark.parametrize(
    ("files", "revision", "said"),
    [
        (("absent.gguf",), "main", "absent.gguf"),
        (("*.gguf",), "0" * 40, "0" * 40),
        (("part-*.safetensors",), "main", "part-*.safetensors"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub: Hub, files: tuple[str, ...], revision: str, said: str) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    with pytest.raises(MscliError) as raised:
        pull(*files, revision=revision)
    assert (raised.value.code, raised.value.details["cause"]) == (Code.DOWNLOAD_FAILED, "model_not_found")
    assert said in raised.value.message


def test_name_that_no_repository_can_have(hub: Hub) -> None:
    named = variant()
    source = dataclasses.replace(named.source, repository="two//slashes/../x")
    with pytest.raises(MscliError) as raised:
        ensure(model(), dataclasses.replace(named, source=source), Heard(), timeouts=QUICK)
    assert raised.value.details["cause"] == "model_not_found"


@pytest.mark.parametrize("name", ["../../outside.gguf", "/outside.gguf"])
def test_file_name_that_leaves_the_cache_is_refused(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.add(REPOSITORY, {name: WEIGHTS})
    with pytest.raises(MscliError, match="cannot be stored in the cache"):
        pull("*.gguf")
    assert not list(tmp_path.rglob("outside*"))


def test_pattern_of_a_small_file_may_match_nothing(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    assert whole(pull(GGUF, "*.jinja").model, WEIGHTS)


def test_token_goes_to_the_hub_and_never_to_the_host_that_sends_the_bytes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS, "config.json": b"{}"}).private = True
    hub.tokens["hf_mine"] = True
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert whole(pull(GGUF, "config.json").model, WEIGHTS)
    assert hub.leaked_tokens == []


def test_address_that_expires_under_way_is_asked_for_again(hub: Hub) -> None:
    long = content(12_000_000)
    hub.add(REPOSITORY, {GGUF: long})
    hub.rate = 3_000_000

    class Expire(Heard):
        def progress(self, progress: Progress) -> None:
            if progress.done_bytes and hub.signature == 1:
                hub.expire_addresses()

    assert whole(pull(listener=Expire()).model, long)
    assert hub.signature == 2, "the pull was over before its first look"
    asked = [path for method, path in hub.requests if method == "HEAD"]
    assert len(asked) > 1, "no part was fetched after the address had expired"
    assert hub.bytes_sent_twice(GGUF) == 0
