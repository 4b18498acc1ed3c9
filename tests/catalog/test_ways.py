"""The ways to run a model, listed in its file: what they take from their engine's, and what is said of broken ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.own_files import model_text

from mscli.catalog.load import Catalog, load_catalog, load_one
from mscli.catalog.names import way_names
from mscli.errors import Code, MscliError

WAYS = "ways:\n  mine-q8:\n    title: Mine\n    engine: llama.cpp\n    variant: q8_0\n"


@pytest.fixture
def models(user: Path) -> Path:
    folder = user / "models"
    folder.mkdir()
    return folder


def at(path: Path, words: str) -> int:
    """The line of a file that has these words."""
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if words in line)


def test_there_are_few_files_beside_the_models(shipped: Path) -> None:
    assert len([path for path in shipped.rglob("*") if path.is_file() and path.parent.name != "models"]) <= 12


def test_a_way_takes_what_it_leaves_out_from_its_engines_ways(shipped: Path, user: Path, models: Path) -> None:
    (models / "mine.yaml").write_text(model_text("mistral-small-3.1") + WAYS)
    found, model = load_one("mine-q8", shipped, user)
    assert (found.model, model.name, found.path) == ("mine", "mine", models / "mine.yaml")
    like = load_one("small-gguf-q8", shipped, user)[0]
    assert (found.gpus, found.kv_types, found.needs, found.images) == (like.gpus, like.kv_types, like.needs, 4)
    assert load_catalog(shipped, user).profile("mine-q8") == found


def test_images_are_taken_over_only_where_the_weights_see(catalog: Catalog) -> None:
    assert catalog.profile("small-gguf-q4").images == 4
    assert catalog.profile("devstral-q4").images == 0


@pytest.mark.parametrize(
    ("lines", "key", "says", "where"),
    [
        ("    port: none\n", "ways.mine-q8.port", "got the text 'none'", "port: none"),
        ("    enginee: vllm\n", "ways.mine-q8.enginee", "did you mean 'engine'?", "enginee"),
        ("    gpus: [1, 99]\n", "ways.mine-q8.gpus[1]", "the range is 1 to 64", "gpus"),
        (
            "    context: {floor: 9, target: 5}\n",
            "ways.mine-q8.context.target",
            "5 is below the floor",
            "context: {floor",
        ),
        ("    model: rehearsal\n", "ways.mine-q8.model", "is this file's own model", "model: rehearsal"),
        ("    automatic: true\n    offload: true\n", "ways.mine-q8.automatic", "only started by name", "automatic"),
        ("    device: cpu\n", "ways.mine-q8.gpus", "a CPU profile uses no GPUs", "mine-q8:"),  # the engine's
    ],
)
def test_a_broken_way_is_named_with_its_line(
    shipped: Path, user: Path, models: Path, lines: str, key: str, says: str, where: str
) -> None:
    path = models / "mine.yaml"
    path.write_text(model_text("mistral-small-3.1") + WAYS + lines)
    catalog = load_catalog(shipped, user)
    for load in (catalog.profile, lambda name: load_one(name, shipped, user)):
        with pytest.raises(MscliError) as caught:
            load("mine-q8")
        assert caught.value.code is Code.PROFILE_INVALID
        assert caught.value.message.startswith(f"{path}:{at(path, where)}: key '{key}': ")
        assert says in caught.value.message
    assert "mine" in catalog.models
    assert "small-q4" in catalog.profiles


@pytest.mark.parametrize("text", ["ways: none\n", "ways: [a]\n"])
def test_ways_that_are_no_section_break_the_model(shipped: Path, user: Path, models: Path, text: str) -> None:
    (models / "mine.yaml").write_text(model_text("rehearsal") + text)
    (fault,) = load_catalog(shipped, user).broken
    assert "key 'ways': expected a section of keys" in fault.message


def test_a_copied_models_ways_do_not_replace_those_of_the_model(shipped: Path, user: Path, models: Path) -> None:
    path = models / "mine.yaml"
    shutil.copy(shipped / "models" / "rehearsal.yaml", path)
    with pytest.raises(MscliError) as caught:
        load_one("rehearsal", shipped, user)
    assert caught.value.message.startswith(f"{path}:{at(path, '  rehearsal:')}: key 'ways.rehearsal': is a way to run")
    assert "give it another name" in caught.value.message


def test_the_ways_of_a_file_that_is_no_yaml_are_still_known_by_name(shipped: Path, user: Path, models: Path) -> None:
    path = models / "mine.yaml"
    path.write_text(model_text("rehearsal") + WAYS + "\t- x\n")
    for load in (load_catalog(shipped, user).profile, lambda name: load_one(name, shipped, user)):
        with pytest.raises(MscliError, match=r"mine\.yaml:[0-9]+: not valid YAML: a tab in the indentation"):
            load("mine-q8")


def test_a_way_in_another_layout_is_found_too(shipped: Path, user: Path, models: Path) -> None:
    way = 'ways: {"mine-q8": {title: Mine, engine: llama.cpp, variant: q8_0}}\n'
    (models / "mine.yaml").write_text(model_text("mistral-small-3.1") + way)
    assert way_names(models / "mine.yaml") == ()
    assert load_one("mine-q8", shipped, user)[0].title == "Mine"


def test_a_fault_in_what_ways_have_in_common_is_named_with_its_line(shipped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shipped"
    shutil.copytree(shipped, folder)
    common = folder / "engines.yaml"
    common.write_text(common.read_text().replace("gpus: [1, 2]", "gpus: one"))
    with pytest.raises(MscliError) as caught:
        load_one("small-q4", folder, None)
    assert caught.value.message.startswith(f"{common}:{at(common, 'gpus: one')}: key 'ollama.gpus': expected a list")
    assert load_one("small-gguf-q4", folder, None)


def test_every_key_in_common_and_every_engine_exists(shipped: Path, catalog: Catalog) -> None:
    from mscli.catalog.document import read_document
    from mscli.catalog.load import common_of
    from mscli.catalog.profile import ENGINES

    root = read_document(shipped / "engines.yaml").root.value
    assert isinstance(root, dict)
    assert set(root) == set(ENGINES)
    assert all(common_of(shipped / "engines.yaml")(engine) for engine in root)


def test_an_old_name_is_its_way_with_what_it_changes_and_says_what_to_type(shipped: Path, catalog: Catalog) -> None:
    way, old = catalog.profile("small-bf16"), catalog.profile("small-bf16-2gpu-docker")
    assert (old.engine, old.gpus, old.images, old.automatic) == ("vllm-docker", (2,), way.images, False)
    assert (old.instead, way.instead) == ("small-bf16 --container --gpus 0,1", "")
    assert old.name not in catalog.profiles
    assert load_one(old.name, shipped, None)[0] == old


OLD = {
    "small-bf16-text": "small-bf16 --images 0",
    "small-bf16-2gpu": "small-bf16 --gpus 0,1",
    "small-bf16-4gpu": "small-bf16 --gpus 0,1,2,3",
    "small-bf16-docker": "small-bf16 --container --images 0",
    "small-bf16-2gpu-offload": "small-bf16 --gpus 0,1 --images 0 --offload --ctx 8192",
    "small-gguf-q4-text": "small-gguf-q4 --images 0",
    "magistral-fp8-2gpu": "magistral-fp8 --gpus 0,1",
}


def test_every_name_of_a_profile_that_ever_shipped_is_known(catalog: Catalog) -> None:
    assert {name: catalog.profile(name).instead for name in OLD} == OLD
    assert len(catalog.profiles) + len(catalog.aliases) == 53
    assert all(way_names(catalog.profile(name).path, "aliases") for name in catalog.aliases)


def test_an_old_name_of_no_way_is_refused_with_the_nearest(shipped: Path, user: Path, models: Path) -> None:
    path = models / "mine.yaml"
    path.write_text(model_text("mistral-small-3.1") + WAYS + "aliases:\n  mine-old: {of: mine-q9}\n")
    with pytest.raises(MscliError) as caught:
        load_one("mine-old", shipped, user)
    assert caught.value.message.startswith(f"{path}:{at(path, 'mine-old')}: key 'aliases.mine-old.of': ")
    assert caught.value.details["nearest"] == "mine-q8"


def test_a_users_own_profile_may_have_an_old_name(shipped: Path, user: Path) -> None:
    (user / "small-bf16-2gpu.yaml").write_text("title: Mine\nengine: llama.cpp\nmodel: rehearsal\nvariant: q8_0\n")
    assert load_catalog(shipped, user).profile("small-bf16-2gpu").title == "Mine"
    assert load_one("small-bf16-2gpu", shipped, user)[0].title == "Mine"
