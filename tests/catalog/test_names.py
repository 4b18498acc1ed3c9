"""Names that people type for a model: its own, a family's, Ollama's tag, a repository; on every described machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.machines.described_machines import inventory_of
from support.machines.nvml_machines import NAMES

from mscli.catalog.gpus import load_gpus
from mscli.catalog.load import Catalog, load_catalog
from mscli.lifecycle.decision import plan_all, plan_ways
from mscli.lifecycle.snapshot import Snapshot
from mscli.paths import shipped_profiles
from mscli.planning.plan import Overrides, Plan

CATALOG = load_catalog(shipped_profiles(), None)
SMALL = ("mistral-small-3.2", "mistral-small-3.1")
MAGISTRAL = ("magistral-small-2509", "magistral-small-2506")
Machine = Callable[..., dict[str, str]]


def quantisations(catalog: Catalog, name: str) -> set[str]:
    ways = catalog.ways(name)
    return {catalog.model_of(way)[1].quantisation for way in ways.profiles} if ways else set()


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("small", SMALL),
        ("mistral-small", SMALL),
        ("Mistral Small", SMALL),
        ("mistral-small:latest", SMALL),
        ("magistral", MAGISTRAL),
        ("magistral-small", MAGISTRAL),
        ("magistral:24b", MAGISTRAL),
        ("devstral", ("devstral-small-2507",)),
        ("mistral-small3.1", ("mistral-small-3.1",)),
        ("mistral-small-3.1", ("mistral-small-3.1",)),
        ("small3.2", ("mistral-small-3.2",)),
        ("Mistral Small 3.1 24B Instruct", ("mistral-small-3.1",)),
        ("mistral-small3.1:24b-instruct-2503-q4_K_M", ("mistral-small-3.1",)),
        ("mistralai/Mistral-Small-3.1-24B-Instruct-2503", ("mistral-small-3.1",)),
        ("https://huggingface.co/mistralai/Mistral-Small-3.1-24B-Instruct-2503", ("mistral-small-3.1",)),
        ("Mistral-Small-3.1-24B-Instruct-2503", ("mistral-small-3.1",)),
        ("magistral-2509", ("magistral-small-2509",)),
        ("Magistral Small 2506", ("magistral-small-2506",)),
        ("unsloth/Magistral-Small-2509-GGUF", ("magistral-small-2509",)),
    ],
)
def test_a_model_goes_by_many_names_and_of_a_family_the_newest_comes_first(name: str, models: tuple[str, ...]) -> None:
    ways = CATALOG.ways(name)
    assert ways is not None
    assert ways.models == models


@pytest.mark.parametrize(
    "name",
    ["small-q4", "small_q4", "rehearsal", "mistral", "llama3", "small-9", "q4_k_m", "", "../small", "mixtral:8x7b"],
)
def test_a_profile_a_misspelt_profile_and_other_models_are_no_name_of_a_model(name: str) -> None:
    assert CATALOG.ways(name) is None


def test_a_quantization_in_the_name_leaves_only_such_weights() -> None:
    assert quantisations(CATALOG, "mistral-small3.1:24b-instruct-2503-q8_0") == {"q8_0"}
    assert quantisations(CATALOG, "mistral-small3.1:24b-instruct-2503-q4_K_M") == {"q4_k_m"}
    assert quantisations(CATALOG, "RedHatAI/Mistral-Small-3.1-24B-Instruct-2503-FP8-dynamic") == {"fp8"}
    assert quantisations(CATALOG, "unsloth/Magistral-Small-2509-GGUF") == {"q4_k_m", "q8_0"}
    assert len(quantisations(CATALOG, "mistralai/Mistral-Small-3.1-24B-Instruct-2503")) > 3


@pytest.mark.parametrize("name", NAMES)
def test_on_every_machine_a_model_is_run_as_the_plan_without_a_name_would_run_it(name: str, machine: Machine) -> None:
    here = Snapshot(inventory_of(name, machine), facts=load_gpus(shipped_profiles()))
    profiles = [profile for profile in CATALOG.profiles.values() if profile.automatic]
    unnamed = plan_all(profiles, CATALOG.models, here, Overrides()).chosen
    for spelled in ("mistral-small3.1", "mistralai/Mistral-Small-3.1-24B-Instruct-2503"):
        ways = CATALOG.ways(spelled)
        assert ways is not None
        assert plan_ways(ways, CATALOG.models, here, Overrides()).chosen == unnamed


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", ["magistral", "small"])
def test_on_every_machine_a_family_means_its_newest_member_that_can_run(
    family: str, name: str, machine: Machine
) -> None:
    here = Snapshot(inventory_of(name, machine), facts=load_gpus(shipped_profiles()))
    ways = CATALOG.ways(family)
    assert ways is not None
    choice = plan_ways(ways, CATALOG.models, here, Overrides())
    fits = {verdict.model for verdict in choice.ranked if isinstance(verdict, Plan)}
    assert (choice.chosen.model if choice.chosen else None) == next(
        (each for each in ways.models if each in fits), None
    )
    if choice.chosen:
        assert CATALOG.models[choice.chosen.model].title in choice.reason
