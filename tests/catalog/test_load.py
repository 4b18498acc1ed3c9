"""Shipped and user's files together: overriding, broken neighbours, unknown names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.own_files import model_text

from mscli.catalog.load import Catalog, load_catalog, load_one, load_profile_file
from mscli.errors import Code, Exit, MscliError

MINE = "title: Mine\nengine: llama.cpp\nmodel: mistral-small-3.1\nvariant: q4_k_m\n"
BROKEN = "title: Mine\nengine: llama.cp\nmodel: mistral-small-3.1\nvariant: q4_k_m\n"


def test_a_missing_user_folder_is_no_fault(shipped: Path, tmp_path: Path) -> None:
    assert load_catalog(shipped, tmp_path / "nowhere").broken == ()


def test_defaults_of_a_minimal_profile(shipped: Path, user: Path) -> None:
    (user / "mine.yaml").write_text(MINE)
    profile = load_catalog(shipped, user).profile("mine")
    assert (profile.device, profile.gpus, profile.kv_types) == ("gpu", (1,), ("f16",))
    assert (profile.images, profile.users, profile.offload, profile.automatic) == (0, 1, False, False)
    assert (profile.host, profile.port, profile.image, profile.notes) == ("127.0.0.1", None, None, "")
    assert (profile.context.floor, profile.context.target, profile.context.cap) == (4096, None, 131072)
    assert profile.path == user / "mine.yaml"


def test_the_cap_is_what_the_model_recommends_unless_said(shipped: Path, user: Path) -> None:
    (user / "mine.yaml").write_text(MINE.replace("mistral-small-3.1", "magistral-small-2506"))
    assert load_catalog(shipped, user).profile("mine").context.cap == 40960


def test_a_cpu_profile_has_no_gpus_unless_said(shipped: Path, user: Path) -> None:
    (user / "mine.yaml").write_text(MINE + "device: cpu\n")
    assert load_catalog(shipped, user).profile("mine").gpus == ()


def test_sizes_take_units(shipped: Path, user: Path) -> None:
    (user / "mine.yaml").write_text(MINE + "needs: {ram_bytes: 32 GB, disk_bytes: 32 GiB}\n")
    needs = load_catalog(shipped, user).profile("mine").needs
    assert (needs.ram_bytes, needs.disk_bytes) == (32 * 10**9, 32 * 2**30)


def test_a_users_profile_overrides_the_shipped_one_of_its_name(shipped: Path, user: Path) -> None:
    (user / "small-q4.yaml").write_text(MINE)
    assert load_catalog(shipped, user).profile("small-q4").title == "Mine"
    assert load_one("small-q4", shipped, user)[0].title == "Mine"


def test_a_users_model_overrides_the_shipped_one_for_shipped_profiles(shipped: Path, user: Path) -> None:
    text = model_text("rehearsal")
    (user / "models").mkdir()
    (user / "models" / "rehearsal.yaml").write_text(text.replace("Rehearsal (scripted", "My own (scripted"))
    catalog = load_catalog(shipped, user)
    model, variant = catalog.model_of(catalog.profile("rehearsal"))
    assert model.title.startswith("My own")
    assert variant is model.variants["q8_0"]
    assert load_one("rehearsal", shipped, user)[1] == model


def test_a_broken_file_never_hides_the_others(shipped: Path, user: Path, catalog: Catalog) -> None:
    (user / "broken.yaml").write_text(BROKEN)
    (user / "mine.yaml").write_text(MINE)
    seen = load_catalog(shipped, user)
    assert set(seen.profiles) == {*catalog.profiles, "mine"}
    assert [error.details["profile"] for error in seen.broken] == ["broken"]


def test_a_broken_file_raises_its_own_error_when_it_is_named(shipped: Path, user: Path) -> None:
    (user / "broken.yaml").write_text(BROKEN)
    for load in (load_catalog(shipped, user).profile, lambda name: load_one(name, shipped, user)):
        with pytest.raises(MscliError, match=r"unknown engine 'llama\.cp'; did you mean 'llama\.cpp'") as caught:
            load("broken")
        assert caught.value.code == Code.PROFILE_INVALID


def test_a_users_broken_file_is_not_replaced_by_the_shipped_one(shipped: Path, user: Path) -> None:
    (user / "small-q4.yaml").write_text(BROKEN)
    catalog = load_catalog(shipped, user)
    assert "small-q4" not in catalog.profiles
    with pytest.raises(MscliError, match=str(user / "small-q4.yaml")):
        catalog.profile("small-q4")


def test_a_profile_whose_model_is_broken_names_both_files(shipped: Path, user: Path) -> None:
    (user / "models").mkdir()
    (user / "models" / "rehearsal.yaml").write_text("title: Mine\n")
    with pytest.raises(MscliError) as caught:
        load_one("rehearsal", shipped, user)
    place = shipped / "models" / "rehearsal.yaml"
    line = place.read_text().splitlines().index("  rehearsal:") + 1
    assert caught.value.message.startswith(f"{place}:{line}: key 'ways.rehearsal.model': the model's file has an error")
    assert f"{user / 'models' / 'rehearsal.yaml'}:1: key 'released': missing" in caught.value.message
    sorts = [set(error.details) & {"model", "profile"} for error in load_catalog(shipped, user).broken]
    assert sorts == [{"model"}, {"profile"}]


@pytest.mark.parametrize(
    ("asked", "meant"), [("smal-q4", "small-q4"), ("small_bf16", "small-bf16"), ("Rehearsal", "rehearsal")]
)
def test_an_unknown_name_gives_the_nearest(shipped: Path, catalog: Catalog, asked: str, meant: str) -> None:
    for load in (catalog.profile, lambda name: load_one(name, shipped, None)):
        with pytest.raises(MscliError, match=f"there is no profile '{asked}'") as caught:
            load(asked)
        assert (caught.value.code, caught.value.exit_code) == (Code.PROFILE_UNKNOWN, Exit.USAGE)
        assert caught.value.details["nearest"] == meant
        assert f"Did you mean {meant}?" in caught.value.hint


def test_a_name_like_no_other_gives_none(catalog: Catalog) -> None:
    with pytest.raises(MscliError) as caught:
        catalog.profile("llama-70b")
    assert caught.value.details["nearest"] is None
    assert caught.value.hint == "To list profiles: mscli profiles"


def test_a_broken_name_is_also_a_near_one(shipped: Path, user: Path) -> None:
    (user / "experiment.yaml").write_text(BROKEN)
    with pytest.raises(MscliError) as caught:
        load_catalog(shipped, user).profile("experimnt")
    assert caught.value.details["nearest"] == "experiment"


@pytest.mark.parametrize("name", ["../small-q4", "/etc/passwd", "mine.yaml", "", "models/rehearsal"])
def test_a_path_is_never_taken_for_a_name(shipped: Path, name: str) -> None:
    with pytest.raises(MscliError, match="there is no profile") as caught:
        load_one(name, shipped, None)
    assert f"--file {name}" in caught.value.hint


def test_one_profile_loads_beside_broken_ones(shipped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shipped"
    shutil.copytree(shipped, folder)
    for path in folder.rglob("*.yaml"):
        if path.stem not in ("engines", "mistral-small-3.1"):
            path.write_text(BROKEN)
    profile, model = load_one("small-q4", folder, None)
    assert (profile.name, model.name) == ("small-q4", "mistral-small-3.1")


def test_one_profile_is_the_same_alone_and_in_the_catalogue(shipped: Path, catalog: Catalog) -> None:
    for name, profile in catalog.profiles.items():
        assert load_one(name, shipped, None) == (profile, catalog.model_of(profile)[0])


def test_a_file_of_its_own_uses_the_catalogues_models(tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "elsewhere.yaml"
    path.write_text(MINE)
    profile = load_profile_file(path, catalog)
    assert (profile.name, profile.path) == ("elsewhere", path)
    assert catalog.model_of(profile)[0].name == "mistral-small-3.1"


def test_hidden_and_foreign_files_are_left_alone(shipped: Path, user: Path, catalog: Catalog) -> None:
    for name in (".#mine.yaml", "README.md", "notes.yaml.bak"):
        (user / name).write_text(BROKEN)
    assert load_catalog(shipped, user) == catalog


def test_a_folder_called_like_a_profile_is_reported(shipped: Path, user: Path) -> None:
    (user / "mine.yaml").mkdir()
    assert "is a folder" in load_catalog(shipped, user).broken[0].message


def test_a_file_in_place_of_the_users_folder_is_reported(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "profiles").touch()
    with pytest.raises(MscliError, match=r"your profiles cannot be read: .*: Not a directory"):
        load_catalog(shipped, tmp_path / "profiles")


def test_missing_shipped_profiles_say_so(tmp_path: Path) -> None:
    with pytest.raises(MscliError, match="the profiles that come with mscli cannot be read") as caught:
        load_catalog(tmp_path / "nowhere", None)
    assert caught.value.code == Code.FILE


def test_what_is_slow_to_import_waits_until_a_file_is_read() -> None:
    script = "import sys, mscli.catalog.load; print({'yaml', 'difflib', 'csv'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["mistral-small-3.1", "mistral-small3.1", "mistral-small3.1:24b-instruct-2503-q4_K_M"])
def test_a_models_name_leads_to_its_profiles(shipped: Path, name: str) -> None:
    with pytest.raises(MscliError) as caught:
        load_one(name, shipped, None)
    assert caught.value.code is Code.PROFILE_UNKNOWN
    assert "small-q4" in caught.value.hint
    assert "rehearsal" not in caught.value.hint
