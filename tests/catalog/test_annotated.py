"""The annotated profile against the schema, and profiles made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mscli.catalog.document import Node, read_document
from mscli.catalog.files import new_profile
from mscli.catalog.load import Catalog, load_catalog, load_profile_file
from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.catalog.schema import MODEL, PROFILE
from mscli.catalog.types import Table
from mscli.cli.screen import plain
from mscli.errors import Code, MscliError


def schema_keys(table: Table, above: str = "") -> Iterator[str]:
    for key in table.keys:
        yield above + key.name
        if isinstance(key.kind, Table):
            yield from schema_keys(key.kind, f"{above}{key.name}.")


def file_keys(node: Node, above: str = "") -> Iterator[str]:
    assert isinstance(node.value, dict)
    for name, entry in node.value.items():
        yield above + name
        if isinstance(entry.value, dict):
            yield from file_keys(entry, f"{above}{name}.")


def test_the_annotated_profile_has_every_key_of_the_schema_and_no_other(shipped: Path) -> None:
    annotated = read_document(shipped / "annotated.yaml")
    assert sorted(file_keys(annotated.root)) == sorted(schema_keys(PROFILE))


def test_every_key_of_the_annotated_profile_is_explained_above_it(shipped: Path) -> None:
    lines = (shipped / "annotated.yaml").read_text().splitlines()
    bare = [
        line
        for before, line in pairwise(lines)
        if re.match(r" *[a-z_]+:", line) and not re.match(r" *# .{20,}", before)
    ]
    assert bare == []


def test_the_annotated_profile_is_valid_and_not_listed(shipped: Path, catalog: Catalog) -> None:
    assert load_profile_file(shipped / "annotated.yaml", catalog).engine == "llama.cpp"
    assert "annotated" not in catalog.profiles


def test_the_schema_names_the_fields_of_the_dataclasses() -> None:
    assert {key.name for key in PROFILE.keys} == {field.name for field in fields(Profile)} - {"name", "path", "instead"}
    assert {key.name for key in MODEL.keys} == {field.name for field in fields(Model)} - {"name", "path"}


def test_every_shipped_profile_survives_a_round_trip(shipped: Path, catalog: Catalog, user: Path) -> None:
    for name, profile in catalog.profiles.items():
        path = new_profile(name, profile, user)
        assert replace(load_profile_file(path, catalog), path=profile.path) == profile


def test_a_new_profile_is_found_and_explains_every_key(shipped: Path, tmp_path: Path, catalog: Catalog) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    path = new_profile("mine", catalog.profile("small-bf16"), folder)
    profile = load_catalog(shipped, folder).profile("mine")
    assert (profile.path, profile.variant) == (path, "bf16")
    assert path.read_text().count("# ") > len(list(schema_keys(PROFILE)))
    assert "This file is no profile itself" not in path.read_text()


def test_a_new_profile_without_a_base_is_the_annotated_example(shipped: Path, user: Path, catalog: Catalog) -> None:
    example = load_profile_file(shipped / "annotated.yaml", catalog)
    mine = load_profile_file(new_profile("mine", None, user), catalog)
    assert replace(mine, name=example.name, path=example.path) == example


def test_a_new_profile_never_overwrites_one(user: Path, catalog: Catalog) -> None:
    path = user / "mine.yaml"
    path.write_text("precious")
    with pytest.raises(MscliError, match="your profile 'mine' already exists") as caught:
        new_profile("mine", catalog.profile("small-q4"), user)
    assert caught.value.code == Code.FILE
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", ".hidden", "annotated", "x" * 65, "a/b"])
def test_a_name_that_cannot_be_typed_is_refused(name: str, user: Path) -> None:
    with pytest.raises(MscliError, match="is not a valid profile name") as caught:
        new_profile(name, None, user)
    assert caught.value.code == Code.USAGE
    assert list(user.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MscliError, match="cannot be written: Not a directory") as caught:
        new_profile("mine", None, tmp_path / "file" / "profiles")
    assert caught.value.code == Code.FILE


printable = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda text: text.strip())


@settings(max_examples=60, deadline=None)
@given(title=printable, notes=st.one_of(st.just(""), printable), option=st.one_of(printable, st.integers(-99, 99)))
def test_any_text_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, catalog: Catalog, title: str, notes: str, option: str | int
) -> None:
    texts: dict[str, Any] = {"title": title, "notes": notes, "options": {"flag": option}, "env": {"A": str(option)}}
    profile = replace(catalog.profile("small-q4"), **texts)
    path = new_profile("mine", profile, tmp_path_factory.mktemp("profiles"))
    assert replace(load_profile_file(path, catalog), name=profile.name, path=profile.path) == profile


def test_a_profile_as_json_has_the_files_own_keys(catalog: Catalog) -> None:
    seen = json.loads(json.dumps(catalog.profile("small-bf16"), default=plain))
    assert set(seen) == {key.name for key in PROFILE.keys} | {"name", "path", "instead"}
    assert (seen["gpus"], seen["kv_types"], seen["context"]["floor"]) == ([1, 2, 4, 8], ["f16", "fp8"], 16384)
    assert seen["path"].endswith("models/mistral-small-3.1.yaml")


def test_a_model_as_json_has_its_bytes(catalog: Catalog) -> None:
    seen = json.loads(json.dumps(catalog.models["mistral-small-3.1"], default=plain))
    assert seen["variants"]["bf16"]["weights_bytes"] == 47_144_806_400
    assert seen["architecture"]["text"]["head_dim"] == 128
    assert seen["variants"]["bf16"]["source"]["files"][0] == "params.json"
