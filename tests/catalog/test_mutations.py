"""Whatever is done to one key of a shipped file, it either loads or is refused with its line; never anything else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mscli.catalog.document import Node, read_document
from mscli.catalog.files import complete, read_model
from mscli.catalog.load import COMMON, Catalog, common_of, load_catalog, load_profile_file, ways_of
from mscli.errors import Code, MscliError
from mscli.paths import shipped_profiles

PROFILES = {
    name: yaml.safe_load(complete(one)) for name, one in load_catalog(shipped_profiles(), None).profiles.items()
}
MODELS = sorted((shipped_profiles() / "models").glob("*.yaml"))

WORDS = ("32k", "14.3 GB", "14 gb", "vllm", "gguf", "gpu", "0.0.0.0", "::1", "true", "../x", "8.9", "q8_0", "hub")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(WORDS),
    st.lists(st.one_of(st.integers(-2, 9), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=8), st.integers(), max_size=2),
)


def plain(node: Node) -> Any:
    if isinstance(node.value, tuple):
        return [plain(entry) for entry in node.value]
    if isinstance(node.value, dict):
        return {name: plain(entry) for name, entry in node.value.items()}
    return node.value


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and list entry below `value`."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        yield (*above, name)
        yield from places(entry, (*above, name))


@st.composite
def mutated(draw: st.DrawFn, files: dict[Any, Any]) -> Any:
    """A shipped file's values with one key replaced, removed or renamed."""
    document = copy.deepcopy(files[draw(st.sampled_from(sorted(files)))])
    *above, last = draw(st.sampled_from(list(places(document))))
    holder: Any = document
    for name in above:
        holder = holder[name]
    deed = draw(st.sampled_from(["replace", "remove", "rename"]))
    if deed == "replace":
        holder[last] = draw(VALUES)
    else:
        value = holder.pop(last)
        if deed == "rename" and isinstance(holder, dict):
            holder[draw(st.text(max_size=10))] = value
    return document


def write(path: Path, document: Any) -> Path:
    path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False))
    return path


def refusal(load: Callable[[], object]) -> MscliError | None:
    try:
        load()
    except MscliError as error:
        return error
    return None


def check(path: Path, error: MscliError | None) -> None:
    """It loaded, or the error is one line that begins with the file and a line that it has."""
    if error is None:
        return
    assert error.code == Code.PROFILE_INVALID
    line = error.details["line"]
    assert isinstance(line, int)
    assert 1 <= line <= path.read_text().count("\n") + 1
    assert error.message.startswith(f"{path}:{line}: ")
    assert error.message.isprintable()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated")


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_written_anew_is_the_same(name: str, scratch: Path, catalog: Catalog) -> None:
    again = write(scratch / f"{name}.yaml", PROFILES[name])
    assert replace(load_profile_file(again, catalog), path=catalog.profile(name).path) == catalog.profile(name)


@settings(max_examples=120, deadline=None)
@given(mutated(PROFILES))
def test_a_profile_with_one_change_loads_or_names_the_line(scratch: Path, catalog: Catalog, document: Any) -> None:
    path = write(scratch / "changed.yaml", document)
    check(path, refusal(lambda: load_profile_file(path, catalog)))


@settings(max_examples=80, deadline=None)
@given(mutated({path: plain(read_document(path).root) for path in MODELS}))
def test_a_model_with_one_change_loads_or_names_the_line(scratch: Path, document: Any) -> None:
    path = write(scratch / "changed-model.yaml", document)
    check(path, error := refusal(lambda: read_model(path)))
    models = {path.stem: error or read_model(path)}
    if error is None or "not valid YAML" not in error.message:
        for _, read in ways_of(read_document(path), models, common_of(shipped_profiles() / COMMON)):
            check(path, refusal(read))


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_a_file_of_anything_loads_or_names_the_line(scratch: Path, catalog: Catalog, content: bytes) -> None:
    path = scratch / "anything.yaml"
    path.write_bytes(content)
    with pytest.raises(MscliError, match=r"anything\.yaml:[0-9]+: ") as caught:
        load_profile_file(path, catalog)
    assert caught.value.code == Code.PROFILE_INVALID
