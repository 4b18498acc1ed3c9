"""The area `weights`: every fault is made for real and found by the real program."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.doctor.visits import Doctor
from support.hub import Hub
from support.run_mscli import Mscli
from support.small_disk import small_disk
from support.weights.hub_profile import GGUF, at


def test_a_machine_of_no_use_yet_is_healthy(doctor: Doctor) -> None:
    seen = doctor("--only", "weights")
    assert seen.code == 0
    assert {found["status"] for found in seen.findings} == {"ok"}, seen.findings


def test_pulled_weights_are_whole(mscli: Mscli, doctor: Doctor, hub: Hub, tiny: str) -> None:
    assert mscli("pull", tiny, env=at(hub)).code == 0
    seen = doctor(tiny, "--only", "weights")
    assert {found["status"] for found in seen.findings} == {"ok"}, seen.findings
    assert "sizes match the hub" in seen.good("weights.files")["seen"]
    assert "nothing to download" in seen.good("weights.space")["seen"]


def test_a_full_disk_takes_not_even_a_small_file(here: Doctor, tiny: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "hub", "64k") as folder:
        (folder / "filled").write_bytes(bytes(60_000))
        with pytest.raises(OSError, match="No space"):
            (folder / "more").write_bytes(bytes(60_000))
        (folder / "more").unlink()
        (folder / "last").write_bytes(bytes(4096))
        seen = here(tiny, "--only", "weights")
        found = seen.bad("weights.folder")
        assert (found["status"], found["code"]) == ("fail", "disk_full")
        assert str(folder) in found["seen"]
        assert not list(folder.glob(".mscli-doctor-*"))


def test_a_disk_too_small_for_the_download(here: Doctor, tiny: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "hub", "1m") as folder:
        seen = here(tiny, "--only", "weights")
        seen.good("weights.folder")
        found = seen.bad("weights.space")
        assert (seen.code, found["status"], found["code"]) == (5, "fail", "disk_full")
        assert str(folder) in found["seen"]
        alone = here("--only", "weights").bad("weights.space")
        assert (alone["status"], alone["code"]) == ("warn", "disk_full")


def test_a_full_folder_for_temporary_files(here: Doctor, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "64k") as folder:
        found = here("--only", "weights", env={"TMPDIR": str(folder)}).bad("weights.scratch")
        assert (found["status"], found["code"]) == ("fail", "disk_full")
        assert str(folder) in found["seen"]


def visit_without_privilege(env: dict[str, str], *args: str) -> list[dict[str, object]]:
    """The findings of a visit by a user whom the modes of files bind; root is first made one."""
    bound = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if bound and shutil.which("setpriv") is None:
        pytest.skip("no setpriv to take root's privileges away")
    argv = [*bound, sys.executable, "-m", "mscli", "doctor", *args, "--json"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    return list(json.loads(done.stdout)["data"]["findings"])


@pytest.mark.parametrize("closed", ["hub", "above/hub"])
def test_a_cache_that_this_user_may_not_write(user_env: dict[str, str], tmp_path: Path, closed: str) -> None:
    cache = tmp_path / closed
    cache.mkdir(parents=True)
    barred = tmp_path / closed.split("/")[0]
    barred.chmod(0o555 if barred == cache else 0o000)
    try:
        visited = visit_without_privilege({**user_env, "HF_HUB_CACHE": str(cache)}, "--only", "weights")
    finally:
        barred.chmod(0o755)
    found = [each for each in visited if each["id"] == "weights.folder"]
    assert [(each["status"], each["code"]) for each in found] == [("fail", "permissions")], found
    assert str(cache) in str(found[0]["seen"])
    assert str(barred) in str(found[0]["evidence"]), "the folder on the way that is closed must be named"


@pytest.mark.parametrize("closed", ["hub", "hub/models--makers--tiny"])
@pytest.mark.parametrize("about", ["tiny", None])
def test_a_closed_cache_ends_no_check(
    user_env: dict[str, str], tmp_path: Path, tiny: str, closed: str, about: str | None
) -> None:
    folder = tmp_path / closed
    folder.mkdir(parents=True)
    folder.chmod(0o000)
    visited = visit_without_privilege(user_env, *([tiny] if about else []), "--only", "weights")
    folder.chmod(0o755)
    assert [found for found in visited if found["status"] == "crashed"] == []
    assert {found["code"] for found in visited if found["status"] == "fail"} == {"permissions"}


def test_a_repository_that_another_user_fetched_into(user_env: dict[str, str], tmp_path: Path, tiny: str) -> None:
    blobs = tmp_path / "hub" / "models--makers--tiny" / "blobs"
    blobs.mkdir(parents=True, mode=0o555)
    visited = visit_without_privilege(user_env, tiny, "--only", "weights")
    found = [each for each in visited if each["id"] == "weights.folder"]
    assert [(each["status"], each["code"]) for each in found] == [("fail", "permissions")], found
    assert str(blobs) in str(found[0]["seen"])


def test_a_truncated_file_is_found_without_a_list_of_sizes(here: Doctor, tiny: str, snapshot: Path) -> None:
    os.truncate(snapshot / GGUF, 100_000)
    seen = here(tiny, "--only", "weights")
    found = seen.bad("weights.files")
    assert (seen.code, found["status"], found["code"]) == (5, "fail", "corrupt_weights")
    assert GGUF in found["seen"]
    assert found["command"] == "mscli pull tiny --verify"
    alone = here("--only", "weights").bad("weights.files")
    assert (alone["status"], alone["code"]) == ("warn", "corrupt_weights")


def test_a_file_of_another_size_than_the_hub_stated(mscli: Mscli, doctor: Doctor, hub: Hub, tiny: str) -> None:
    done = mscli("pull", tiny, "--json", env=at(hub))
    assert done.code == 0, done.out
    seen = doctor(tiny, "--only", "weights")
    where = Path(seen.good("weights.files")["seen"].removeprefix("weights in ").split(" (")[0])
    os.truncate((where / GGUF).resolve(), 5)
    found = doctor(tiny, "--only", "weights").bad("weights.files")
    assert (found["status"], found["code"]) == ("fail", "corrupt_weights")


def test_an_lfs_pointer_in_place_of_weights(here: Doctor, tiny: str, snapshot: Path) -> None:
    (snapshot / GGUF).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2358112\n")
    found = here(tiny, "--only", "weights").bad("weights.files")
    assert found["code"] == "corrupt_weights"
    assert "Git LFS pointer" in found["seen"]


def test_a_link_to_a_blob_that_is_gone(here: Doctor, tiny: str, snapshot: Path) -> None:
    (snapshot / GGUF).unlink()
    (snapshot / GGUF).symlink_to("../../blobs/gone")
    found = here(tiny, "--only", "weights").bad("weights.files")
    assert found["code"] == "corrupt_weights"
    assert "broken link" in found["seen"]


def test_whole_files_of_another_tool_serve(here: Doctor, tiny: str, snapshot: Path) -> None:
    seen = here(tiny, "--only", "weights")
    assert seen.code == 0
    assert str(snapshot) in seen.good("weights.files")["seen"]


@pytest.mark.parametrize(("suffix", "whose"), [("mscli.incomplete", "mscli pull"), ("ab12.incomplete", "rm ")])
def test_an_unfinished_file_of_a_process_that_is_gone(
    here: Doctor, tiny: str, tmp_path: Path, suffix: str, whose: str
) -> None:
    blobs = tmp_path / "hub" / "models--makers--tiny" / "blobs"
    blobs.mkdir(parents=True)
    left = blobs / f"{'a' * 64}.{suffix}"
    left.write_bytes(b"x" * 10_000)
    assert here(tiny, "--only", "weights").good("weights.partial"), "what has just grown may be fetched elsewhere"
    os.utime(left, (1e9, 1e9))
    found = here(tiny, "--only", "weights").bad("weights.partial")
    assert (found["status"], found["code"]) == ("warn", "stalled_download")
    assert found["command"].startswith(whose)


@pytest.mark.parametrize("silent_s", [0, 600])
def test_a_download_under_way_is_told_from_one_that_hangs(
    here: Doctor, tiny: str, tmp_path: Path, silent_s: int
) -> None:
    repository = "models--makers--tiny"
    blob = tmp_path / "hub" / repository / "blobs" / f"{'a' * 64}.mscli.incomplete"
    lock = tmp_path / "hub" / ".locks" / repository / f"{'a' * 64}.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 5000)
    then = blob.stat().st_mtime - silent_s
    os.utime(blob, (then, then))
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = here(tiny, "--only", "weights").of("weights.partial")
    assert [each["status"] for each in found] == ["warn" if silent_s else "ok"]
    assert str(os.getpid()) in found[0]["seen"]


def test_offline_mode_fails_only_what_is_not_here(here: Doctor, tiny: str) -> None:
    off = {"HF_HUB_OFFLINE": "1"}
    found = here(tiny, "--only", "weights", env=off).bad("weights.offline")
    assert (found["status"], found["code"]) == ("fail", "offline")
    assert "HF_HUB_OFFLINE=1" in found["seen"]
    assert here("rehearsal", "--only", "weights", env=off).code == 0
    assert here("--only", "weights", env=off).bad("weights.offline")["status"] == "warn"


def test_offline_mode_is_fine_with_the_files_here(here: Doctor, tiny: str, snapshot: Path) -> None:
    seen = here(tiny, "--only", "weights", env={"HF_HUB_OFFLINE": "1"})
    assert seen.code == 0
    seen.good("weights.offline")


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("HF_HUB_OFFLINE", "perhaps", None),
        ("TRANSFORMERS_CACHE", "/somewhere/else", None),
        ("HF_HUB_ENABLE_HF_TRANSFER", "1", "python_env"),
        ("HF_XET_CHUNK_CACHE_SIZE_BYTES", "10G", None),
        ("HF_HUB_CACHE", "relative/hub", None),
    ],
)
def test_a_setting_that_misleads_is_named(here: Doctor, tmp_path: Path, name: str, value: str, code: str) -> None:
    env = {name: value, "TMPDIR": str(tmp_path)}
    found = [each for each in here("--only", "weights", env=env).of("weights.settings") if each["status"] == "warn"]
    assert [each["code"] for each in found] == [code]
    assert value in found[0]["seen"] or name in found[0]["seen"]


def test_a_token_is_named_by_its_place_and_never_shown(here: Doctor, tmp_path: Path) -> None:
    secret = "hf_" + "Q7" * 16
    kept = tmp_path / "hf" / "token"
    kept.parent.mkdir()
    kept.write_text(secret + "\n")
    kept.chmod(0o644)
    seen = here("--only", "weights", env={"HF_HOME": str(kept.parent)})
    first, second = seen.of("weights.token")
    assert (first["status"], second["status"]) == ("ok", "warn")
    assert str(kept) in first["seen"]
    assert second["command"] == f"chmod 600 {kept}"
    assert secret not in seen.text


def test_what_is_no_token_is_said_to_be_none(here: Doctor) -> None:
    seen = here("--only", "weights", env={"HF_TOKEN": "my secret pass"})
    found = seen.bad("weights.token")
    assert found["code"] == "hf_gated"
    assert "secret pass" not in seen.text
