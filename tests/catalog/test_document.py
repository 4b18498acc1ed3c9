"""How YAML is read: scalars, lines, anchors and merge keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mscli.catalog.document import dotted, read_document
from mscli.catalog.load import Catalog, load_profile_file


def scalar(tmp_path: Path, text: str) -> object:
    path = tmp_path / "file.yaml"
    path.write_text(f"key: {text}\n")
    root = read_document(path).root.value
    assert isinstance(root, dict)
    return root["key"].value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("32768", 32768),
        ("32_768", 32768),
        ("-5", -5),
        ("0", 0),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("0.15", 0.15),
        ("1e3", 1000.0),
        (".5", ".5"),
        (".inf", ".inf"),
        ("9" * 5000, "9" * 5000),
        ("true", True),
        ("yes", "yes"),
        ("on", "on"),
        ("", None),
        ("null", None),
        ("~", None),
        ("'8'", "8"),
        ('"true"', "true"),
        ("2025-03-17", "2025-03-17"),
        ("!!str 8", "8"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    seen = scalar(tmp_path, text)
    assert seen == value
    assert type(seen) is type(value)


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "mine.yaml"
    lines = ["title: A profile", "engine: llama.cpp", "model: rehearsal", "variant: q8_0"]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert load_profile_file(path, catalog).model == "rehearsal"


def test_a_merged_section_keeps_its_own_keys(profile_file: Callable[[str], Path], catalog: Catalog) -> None:
    path = profile_file("env: &common {A: 1, B: two}\noptions:\n  <<: *common\n  B: 3\n")
    assert load_profile_file(path, catalog).options == {"A": 1, "B": 3}


def test_env_values_stay_as_they_were_written(profile_file: Callable[[str], Path], catalog: Catalog) -> None:
    path = profile_file("env: {A: 1, B: 1.10, C: true, D: '', E: 010}\n")
    assert load_profile_file(path, catalog).env == {"A": "1", "B": "1.10", "C": "true", "D": "", "E": "010"}


def test_a_version_keeps_its_last_zero(profile_file: Callable[[str], Path], catalog: Catalog) -> None:
    path = profile_file("needs: {cuda: 12.10, compute_capability: 8.0}\n")
    needs = load_profile_file(path, catalog).needs
    assert (needs.cuda, needs.compute_capability) == ("12.10", "8.0")


def test_a_line_is_that_of_the_key_also_for_values_below_it(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("# comment\nfirst: 1\nnotes: >-\n  some\n  text\nlist:\n  - 1\n  - a: 2\n")
    document = read_document(path)
    assert [document.line(key) for key in (("first",), ("notes",), ("list",), ("list", "1"))] == [2, 3, 6, 8]


def test_the_line_of_a_missing_key_is_that_of_its_section(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("title: x\ncontext:\n  floor: 1\n")
    assert read_document(path).line(("context", "cap")) == 2


def test_keys_are_shown_with_dots_and_brackets() -> None:
    assert dotted(("variants", "q8_0", "source", "files", "0")) == "variants.q8_0.source.files[0]"
