"""Weights on disk are checked byte for byte, and only bad files are fetched again."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from support.hub import Hub
from support.weights.pulls import QUICK, REPOSITORY, Heard, content, pull, variant, whole

from mscli.errors import Code, MscliError
from mscli.paths import shipped_profiles
from mscli.weights.local_folder import GGML_BLOCKS, length_fault
from mscli.weights.stored import Verified, verify

FILES = {f"model-{part:05d}-of-00003.safetensors": content(1_200_000, part) for part in (1, 2, 3)}
BAD = "model-00002-of-00003.safetensors"


def check(**more: bool) -> Verified:
    return verify(variant("*.safetensors", layout="safetensors-hf"), Heard(), timeouts=QUICK, **more)


@pytest.fixture
def pulled(hub: Hub) -> Path:
    """The snapshot folder of a whole pull."""
    hub.add(REPOSITORY, FILES)
    folder = Path(pull("*.safetensors", layout="safetensors-hf").model)
    hub.forget_counts()
    return folder


def damage(path: Path, at: int = 600_000) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_good_weights_are_said_to_be_good(hub: Hub, pulled: Path) -> None:
    found = check()
    assert (found.files, found.checked_bytes) == (3, 3_600_000)
    assert (found.bad, found.absent, found.repaired) == ((), (), False)
    assert hub.requests == [], "checking what is on disk asked the hub"


def test_one_bit_is_found_and_only_its_file_fetched_again(hub: Hub, pulled: Path) -> None:
    damage(pulled / BAD)
    found = check()
    assert (found.bad, found.repaired) == ((BAD,), True)
    assert whole(pulled / BAD, FILES[BAD])
    assert {name: hub.sent_bytes(name) for name in FILES} == {**dict.fromkeys(FILES, 0), BAD: 1_200_000}


def test_absent_and_cut_files_are_fetched_again(hub: Hub, pulled: Path) -> None:
    (pulled / BAD).resolve().unlink()
    first = next(iter(FILES))
    (pulled / first).resolve().write_bytes(FILES[first][:1000])
    found = check()
    assert (set(found.absent), found.repaired) == ({BAD, first}, True)
    assert all(whole(pulled / name, data) for name, data in FILES.items())


def test_a_damaged_file_outside_the_cache_is_left_as_it_is(hub: Hub, pulled: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(FILES[BAD])
    damage(mine)
    before = mine.read_bytes()
    (pulled / BAD).unlink()
    (pulled / BAD).symlink_to(mine)
    assert check().repaired
    assert mine.read_bytes() == before, "verifying deleted a file outside the cache through a link"
    assert whole(pulled / BAD, FILES[BAD])


def test_looking_without_repair_changes_nothing(hub: Hub, pulled: Path) -> None:
    damage(pulled / BAD)
    before = (pulled / BAD).read_bytes()
    assert check(repair=False).bad == (BAD,)
    assert check(offline=True).bad == (BAD,)
    assert (pulled / BAD).read_bytes() == before


def test_offline_without_hashes_says_so(hub: Hub) -> None:
    with pytest.raises(MscliError) as raised:
        check(offline=True)
    assert (raised.value.code, raised.value.details["cause"]) == (Code.WEIGHTS_MISSING, "offline")


def safetensors(data: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
    return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.safetensors", safetensors(bytes(1000)), None),
        ("a.safetensors", safetensors(bytes(1000))[:-1], "ends after"),
        ("a.safetensors", safetensors(bytes(1000)) + b"x", "its header says"),
        ("a.safetensors", b"\xff" * 100, "unreadable header"),
        ("a.safetensors", b"{}", "unreadable header"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "LFS pointer"),
        ("a.gguf", b"GGUF" + bytes(10), "unreadable header"),
        ("a.gguf", b"<html>not found</html>" * 9, "unreadable header"),
        ("a.gguf", b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + b"\xff" * 40, "unreadable header"),
        ("config.json", b"{}", None),
    ],
)
def test_header_tells_of_a_wrong_length(tmp_path: Path, name: str, data: bytes, said: str | None) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    fault = length_fault(path)
    assert said in fault if said and fault else fault is said


@pytest.mark.parametrize("shipped", ["rehearsal-q8_0.gguf", "mmproj-rehearsal-f16.gguf"])
def test_gguf_header_tells_of_a_cut_file(tmp_path: Path, shipped: str) -> None:
    data = (shipped_profiles().parent / "mscli" / "rehearsal" / shipped).read_bytes()
    path = tmp_path / shipped
    path.write_bytes(data)
    assert length_fault(path) is None
    path.write_bytes(data[:-64])
    assert "ends after" in (length_fault(path) or "")


def test_block_sizes_are_those_of_ggml() -> None:
    sizes = pytest.importorskip("gguf.constants").GGML_QUANT_SIZES
    assert {int(kind): size for kind, size in sizes.items() if int(kind) in GGML_BLOCKS} == GGML_BLOCKS
