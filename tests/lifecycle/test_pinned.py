"""What is kept of a parsed file is that file, and whatever becomes of it costs time alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.run_mscli import call, environment

from mscli.catalog.document import read_document
from mscli.errors import MscliError
from mscli.lifecycle.pinned import read_parsed, to_keep
from mscli.paths import shipped_profiles

FILES = [shipped_profiles() / "engines.yaml", *sorted((shipped_profiles() / "models").iterdir())]


def keep(folder: Path) -> list[Path]:
    made = []
    for path, text in to_keep(folder):
        path.write_text(text)
        made.append(path)
    return made


@pytest.fixture(autouse=True)
def _nothing_parsed_before(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Other tests of this process may have left what they parsed."""
    keep(tmp_path_factory.mktemp("before"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file of which something is kept."""
    (tmp_path / "kept").mkdir()
    path = tmp_path / "model.yaml"
    shutil.copy(shipped_profiles() / "models" / "rehearsal.yaml", path)
    read_parsed(path, tmp_path / "kept")
    assert len(keep(tmp_path / "kept")) == 1
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_kept_is_what_is_read(path: Path, tmp_path: Path) -> None:
    assert read_parsed(path, tmp_path) == read_document(path)
    assert len(keep(tmp_path)) == 1
    assert read_parsed(path, tmp_path) == read_document(path)
    assert keep(tmp_path) == [], "it was not parsed again"


def test_an_edit_counts_even_with_the_same_size_and_time(model: Path) -> None:
    before = model.stat()
    text = model.read_text().replace("Rehearsal", "rehearsal", 1)
    model.write_text(text)
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_parsed(model, model.parent / "kept") == read_document(model)
    assert len(keep(model.parent / "kept")) == 1


def test_a_file_that_became_wrong_is_refused(model: Path) -> None:
    model.write_text("a: 1\na: 2\n")
    with pytest.raises(MscliError, match="given twice"):
        read_parsed(model, model.parent / "kept")
    assert keep(model.parent / "kept") == []


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b"[]", b"null", b'{"text": 1}', b"\xff", b'{"root": ' + b"[" * 100_000, None]
)
def test_what_is_damaged_is_passed_over(damaged: bytes | None, model: Path) -> None:
    folder = model.parent / "kept"
    (path,) = folder.iterdir()
    text = path.read_bytes()
    path.write_bytes(text[:-20] if damaged is None else damaged)
    assert read_parsed(model, folder) == read_document(model)
    assert keep(folder) == [path]
    assert path.read_bytes() == text


def test_no_more_than_so_many_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    for number in range(70):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"a: {number}\n")
        read_parsed(path, folder)
    assert len(keep(folder)) == 64
    assert keep(folder) == []


def test_a_start_goes_on_where_nothing_can_be_kept(tmp_path: Path) -> None:
    env = environment(tmp_path, tmp_path / "home")
    (tmp_path / "home" / "state").mkdir(parents=True)
    (tmp_path / "home" / "state" / "parsed").write_text("a file of somebody else's")
    try:
        up = call("up", "rehearsal", env=env)
        assert (up.code, "warning" in up.out + up.err) == (0, False)
    finally:
        call("down", "--all", env=env)
