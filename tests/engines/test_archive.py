"""Archives that want out, or grow without end: unpacked below their own folder, or refused with nothing left behind."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engines.releases import Heard, Releases, zstd_packed
from support.refused import refused

from mscli.engines.archive import LARGEST, Archive, Largest, Publisher, put
from mscli.errors import Code, MscliError

PUBLISHER = Publisher("https://example.org/releases", "copy it by hand.")
Serve = Callable[[dict[str, bytes]], Releases]
Entry = tuple[str, bytes, str | bytes]
"""Name, type of entry, and its content or the target of the link."""


def packed(*entries: Entry) -> bytes:
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, kind, rest in (("bin/engine", tarfile.REGTYPE, b"#!/bin/sh\n"), *entries):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, 0o4777
            if isinstance(rest, str):
                entry.linkname = rest
                tar.addfile(entry)
            else:
                entry.size = len(rest)
                tar.addfile(entry, BytesIO(rest))
    return file.getvalue()


@pytest.fixture(params=["gz", "zst"])
def unpack(serve: Serve, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """A function: the folder into which an archive was put, packed in either way."""

    def here(data: bytes, limits: Largest = LARGEST) -> Path:
        name = f"/engine.tar.{request.param}"
        if request.param == "zst":
            data = zstd_packed(gzip.decompress(data))
        releases = serve({name: data})
        one = Archive(PUBLISHER, f"{releases.url}{name}", hashlib.sha256(data).hexdigest(), "bin/engine", limits)
        place = tmp_path / "deep" / "engine"
        put(one, tmp_path / "deep" / "engine.partial", place, Heard())
        return place

    return here


def test_what_a_killed_mscli_has_unpacked_is_removed_and_not_what_another_one_unpacks(
    unpack: Callable[..., Path], tmp_path: Path
) -> None:
    (ended := subprocess.Popen(["true"])).wait()
    for left in (f"engine.fresh-{ended.pid}", f"engine.old-{ended.pid}", f"engine.fresh-{os.getppid()}"):
        (tmp_path / "deep" / left / "0").mkdir(parents=True)
    unpack(packed())
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"engine", f"engine.fresh-{os.getppid()}"}


def test_links_that_stay_inside_are_kept(unpack: Callable[..., Path]) -> None:
    place = unpack(
        packed(
            ("./", tarfile.DIRTYPE, ""),
            ("lib/", tarfile.DIRTYPE, ""),
            ("lib/libx.so.1", tarfile.REGTYPE, b"library"),
            ("lib/libx.so", tarfile.SYMTYPE, "libx.so.1"),
            ("lib/cuda/libx.so", tarfile.SYMTYPE, "../libx.so"),
            ("bin/libx.so", tarfile.SYMTYPE, ".././lib/libx.so.1"),
            ("lib64", tarfile.SYMTYPE, "lib"),
            ("lib/same.so", tarfile.LNKTYPE, "lib/libx.so.1"),
        )
    )
    for name in ("lib/libx.so", "lib/cuda/libx.so", "bin/libx.so", "lib64/libx.so.1", "lib/same.so"):
        assert (place / name).read_bytes() == b"library", name
    assert (place / "bin/engine").stat().st_mode & 0o7777 == 0o755, "a set-user-ID bit came along"


@pytest.mark.parametrize(
    "entries",
    [
        [("../evil", tarfile.REGTYPE, b"x")],
        [("/tmp/evil", tarfile.REGTYPE, b"x")],
        [("a/../../evil", tarfile.REGTYPE, b"x")],
        [("evil", tarfile.SYMTYPE, "/etc/passwd")],
        [("evil", tarfile.SYMTYPE, "../../evil")],
        [("a/evil", tarfile.SYMTYPE, "../../evil")],
        [("out", tarfile.SYMTYPE, ".."), ("out/evil", tarfile.REGTYPE, b"x")],
        [("in", tarfile.SYMTYPE, "bin"), ("in/evil", tarfile.REGTYPE, b"x")],
        [("a/up", tarfile.SYMTYPE, ".."), ("evil", tarfile.SYMTYPE, "a/up/../evil")],
        [("evil", tarfile.LNKTYPE, "../evil")],
        [("evil", tarfile.LNKTYPE, "/etc/passwd")],
        [("up", tarfile.SYMTYPE, "bin"), ("evil", tarfile.LNKTYPE, "up/engine")],
        [("evil", tarfile.FIFOTYPE, "")],
        [("evil", tarfile.CHRTYPE, "")],
        [("evil\0.so", tarfile.SYMTYPE, "a\0/../../evil")],
    ],
    ids=lambda entries: " ".join(f"{name!r}->{rest!r}" for name, _, rest in entries),
)
def test_what_leaves_the_folder_is_refused_and_nothing_stays(
    unpack: Callable[..., Path], tmp_path: Path, entries: list[Entry]
) -> None:
    outside = tmp_path / "evil"
    outside.write_text("mine")
    if any("\0" in name for name, *_ in entries):
        place = unpack(packed(*entries))  # tarfile itself ends a name at its NUL
        assert all(os.path.realpath(path).startswith(str(place)) for path in place.rglob("*"))
        return
    with pytest.raises(MscliError) as raised:
        unpack(packed(*entries))
    assert (raised.value.code, raised.value.details["cause"]) == (Code.DOWNLOAD_FAILED, "corrupt_download")
    assert outside.read_text() == "mine"
    assert not list(tmp_path.glob("deep/engine*")) or [path.name for path in tmp_path.glob("deep/*")] == [
        "engine.partial"
    ]


@pytest.mark.parametrize("limits", [Largest(unpacked_bytes=1_000_000), Largest(entries=3), Largest(depth=8)], ids=str)
def test_an_archive_beyond_any_engine_is_refused(unpack: Callable[..., Path], limits: Largest) -> None:
    data = packed(*((f"{'d/' * 8}{number}", tarfile.REGTYPE, bytes(300_000)) for number in range(4)))
    assert unpack(data).is_dir()
    with pytest.raises(MscliError, match="too large for an engine"):
        unpack(data, limits)


def test_a_name_of_a_gigabyte_is_not_read_into_memory(unpack: Callable[..., Path]) -> None:
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        entry = tarfile.TarInfo("././@LongLink")
        entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 200 << 20
        tar.addfile(entry, BytesIO(bytes(200 << 20)))
    with pytest.raises(MscliError, match="header record of an entry has"):
        unpack(file.getvalue())


NAMES = st.lists(st.sampled_from(("a", "b", "bin", "engine", "..", ".", "", "evil", "\0", "x" * 300)), max_size=5).map(
    "/".join
)
KINDS = st.sampled_from(
    (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE)
)
ENTRIES = st.lists(st.tuples(NAMES, KINDS, NAMES), max_size=6)


@settings(max_examples=40)
@given(entries=ENTRIES, slash=st.booleans())
def test_no_archive_of_any_entries_reaches_outside(
    unpack: Callable[..., Path], tmp_path: Path, entries: list[tuple[str, bytes, str]], slash: bool
) -> None:
    outside = tmp_path / "evil"
    outside.write_text("mine")
    linked = [(name, kind, ("/" if slash else "") + target) for name, kind, target in entries]
    data = packed(*((name, kind, b"x" if kind == tarfile.REGTYPE else target) for name, kind, target in linked))
    fault, place = refused(lambda: unpack(data)), tmp_path / "deep" / "engine"
    assert fault is None or fault.code in (Code.DOWNLOAD_FAILED, Code.FILE)
    if fault is None:
        root = os.path.realpath(place)
        assert all(os.path.realpath(path).startswith(root) for path in place.rglob("*"))
    assert outside.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {"evil", "deep"}
