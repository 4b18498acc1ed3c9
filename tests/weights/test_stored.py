"""What lies on disk, whose it is, and what can be freed without harm."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
from pathlib import Path

import pytest
from support.hub import Hub
from support.weights.pulls import GGUF, REPOSITORY, content, model, pull, variant, whole

from mscli.catalog.load import load_one
from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import Profile
from mscli.errors import MscliError
from mscli.paths import shipped_profiles
from mscli.weights.stored import Stored, on_disk, prune, prune_candidates

Q4, Q8, SHARED = content(1_200_000, 4), content(2_300_000, 8), content(60_000, 9)
BIG = "small-q8_0.gguf"


def variants() -> dict[str, Variant]:
    q4, q8 = variant(GGUF, "config.json"), variant(BIG, "config.json")
    return {"q4": dataclasses.replace(q4, name="q4"), "q8": dataclasses.replace(q8, name="q8")}


def catalogue() -> dict[str, Model]:
    return {"small": dataclasses.replace(model(), name="small", variants=variants())}


def profile(name: str, chosen: str) -> Profile:
    return dataclasses.replace(
        load_one("rehearsal", shipped_profiles(), None)[0], name=name, model="small", variant=chosen
    )


def stored(*profiles: Profile) -> dict[tuple[str, ...], Stored]:
    """By the variants each belongs to."""
    return {one.variants: one for one in on_disk(profiles, catalogue())}


@pytest.fixture
def published(hub: Hub) -> Hub:
    hub.add(REPOSITORY, {GGUF: Q4, BIG: Q8, "config.json": SHARED, "README.md": b"read me"})
    return hub


def test_nothing_pulled_is_nothing_stored(published: Hub) -> None:
    assert on_disk([profile("a", "q4")], catalogue()) == ()


def test_stored_weights_are_listed_by_variant_with_size_and_users(published: Hub) -> None:
    pull(GGUF, "config.json")
    pull(BIG, "config.json")
    found = stored(profile("first", "q4"), profile("second", "q4"))
    assert found[("small:q4",)].profiles == ("first", "second")
    assert found[("small:q4",)].size_bytes == len(Q4) + len(SHARED)
    assert found[("small:q8",)].profiles == ()
    assert found[("small:q8",)].last_used_s is not None
    assert [one.variants for one in on_disk([], catalogue())] == [("small:q8",), ("small:q4",)], "not largest first"


def test_pruning_frees_what_no_profile_uses_and_spares_shared_files(published: Hub, cache: Path) -> None:
    kept = pull(GGUF, "config.json")
    pull(BIG, "config.json")
    free = prune_candidates(on_disk([profile("first", "q4")], catalogue()), [])
    assert [one.variants for one in free] == [("small:q8",)]
    before = sum(path.stat().st_blocks * 512 for path in cache.rglob("*") if path.is_file() and not path.is_symlink())
    freed = prune(free[0])
    after = sum(path.stat().st_blocks * 512 for path in cache.rglob("*") if path.is_file() and not path.is_symlink())
    assert before - after == freed >= len(Q8)
    published.forget_counts()
    assert pull(GGUF, "config.json") == kept
    assert whole(kept.model, Q4)
    assert published.sent_bytes("config.json") in (0, len(SHARED))


def test_what_an_instance_serves_from_is_kept(published: Hub) -> None:
    files = pull(GGUF)
    everything = on_disk([], catalogue())
    assert prune_candidates(everything, [Path(files.model)]) == ()
    assert prune_candidates(everything, [Path(files.model).parent]) == ()
    assert len(prune_candidates(everything, [])) == 1


def test_profiles_to_keep_can_be_chosen(published: Hub) -> None:
    pull(GGUF)
    used = on_disk([profile("first", "q4")], catalogue())
    assert prune_candidates(used, []) == ()
    assert prune_candidates(used, [], keep_profiles=["first"]) == ()
    assert len(prune_candidates(used, [], keep_profiles=[])) == 1


def test_older_revision_is_nobodys(published: Hub) -> None:
    pull(GGUF)
    published.add(REPOSITORY, {GGUF: content(50_000, 11)})
    pull(GGUF, revision=published.repositories[REPOSITORY].commit)
    newer = on_disk([profile("first", "q4")], catalogue())
    assert sorted(one.profiles for one in newer) == [(), ("first",)]


def test_unfinished_download_is_listed_and_freed_with_its_variant(published: Hub, cache: Path) -> None:
    published.fault("status", GGUF, at=1_100_000, status=403, times=None)
    with pytest.raises(MscliError):
        pull(GGUF)
    found = stored(profile("first", "q4"))[("small:q4",)]
    assert found.unfinished_bytes >= 1_000_000
    assert found.files == ()
    assert prune(found) >= 1_000_000
    assert not list(cache.glob("models--*")), "an empty repository folder is left"


def test_weights_that_are_being_fetched_are_not_freed(published: Hub, cache: Path) -> None:
    pull(GGUF)
    found = stored()[("small:q4",)]
    lock = next(cache.glob(".locks/*/*.lock"))
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(MscliError, match="is downloading these weights"):
            prune(found)
    assert whole(found.files[0], Q4)


def test_blob_that_two_repositories_share_goes_with_the_last_of_them(hub: Hub, cache: Path) -> None:
    from huggingface_hub import snapshot_download

    for name in (REPOSITORY, "others/copy"):
        hub.add(name, {GGUF: Q4}, xet=True)
        snapshot_download(name, cache_dir=cache, endpoint=hub.url)
    payloads = [path for path in (cache / "blobs").glob("*/*") if path.stat().st_size == len(Q4)]
    if not payloads:
        pytest.skip("this huggingface_hub does not share blobs between repositories")
    freed = prune(stored()[("small:q4",)])
    assert freed < len(Q4)
    assert payloads[0].exists(), "a blob was deleted that another repository links to"
    assert whole(next(cache.glob("models--others--copy/snapshots/*/*")), Q4)
    hub.add(REPOSITORY, {GGUF: Q4}, xet=True)
    snapshot_download(REPOSITORY, cache_dir=cache, endpoint=hub.url)
    shutil.rmtree(cache / "models--others--copy")
    assert prune(stored()[("small:q4",)]) >= len(Q4)
    assert not list((cache / "blobs").glob("*/*[0-9a-f]")), "the shared bytes outlive their last repository"


@pytest.mark.parametrize("through", ["file", "absolute", "chain", "folder", "blobs", "other repository"])
def test_what_a_link_leads_to_outside_the_repository_is_never_deleted(
    published: Hub, cache: Path, tmp_path: Path, through: str
) -> None:
    pull(GGUF)
    snapshot = next(cache.glob("models--*/snapshots/*"))
    mine = tmp_path / "data"
    if through == "other repository":
        mine = cache / "models--somebody--else" / "blobs"
    mine.mkdir(parents=True)
    kept = mine / GGUF
    kept.write_bytes(Q4)
    if through == "folder":
        shutil.rmtree(snapshot)
        snapshot.symlink_to(mine)
    elif through == "blobs":
        shutil.rmtree(snapshot.parents[1] / "blobs")
        (snapshot.parents[1] / "blobs").symlink_to(mine)
        (snapshot / GGUF).unlink()
        (snapshot / GGUF).symlink_to(f"../../blobs/{GGUF}")
    else:
        (snapshot / GGUF).unlink()
        target = kept if through == "absolute" else Path(os.path.relpath(kept, snapshot))
        if through == "chain":
            (snapshot.parents[1] / "link").symlink_to(kept)
            target = Path("../../link")
        (snapshot / GGUF).symlink_to(target)
    for one in on_disk([], catalogue()):
        prune(one)
    assert whole(kept, Q4), f"a file outside the repository was deleted through a link ({through})"
    assert through == "folder" or not (snapshot / GGUF).is_symlink(), "the link itself is left"
