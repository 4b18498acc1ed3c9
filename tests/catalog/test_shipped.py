"""The data that comes with mscli: it loads, agrees with itself and with what was published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import pytest

import mscli
from mscli.catalog.load import Catalog
from mscli.catalog.model import Model, Text, Variant
from mscli.catalog.names import way_names
from mscli.catalog.profile import ENGINES, loads, on_engine

GIB = 2**30
FAMILY = (
    "mistral-small-3.1",
    "mistral-small-3.2",
    "magistral-small-2506",
    "magistral-small-2509",
    "devstral-small-2507",
)


def test_every_shipped_file_loads(catalog: Catalog, shipped: Path) -> None:
    assert [error.message for error in catalog.broken] == []
    assert set(catalog.profiles) == {name for path in shipped.glob("models/*.yaml") for name in way_names(path)}
    assert set(catalog.models) == {path.stem for path in (shipped / "models").glob("*.yaml")} == {*FAMILY, "rehearsal"}


@dataclass(frozen=True)
class Row:
    """A row of the source documents as a profile must answer it."""

    profile: str
    engine: str
    model: str
    quantisation: str
    gpus: int
    images: int
    target: int | None = None
    cap: int = 131072


ROWS = [
    Row("small-q4", "ollama", "mistral-small-3.1", "q4_k_m", 1, 4),
    Row("small-bf16", "vllm", "mistral-small-3.1", "bf16", 1, 10),
    Row("small-bf16-text", "vllm", "mistral-small-3.1", "bf16", 1, 0, target=32768),
    Row("small-bf16-2gpu", "vllm", "mistral-small-3.1", "bf16", 2, 10, target=65536),
    Row("small-bf16-docker", "vllm-docker", "mistral-small-3.1", "bf16", 1, 0, target=32768),
    Row("small-bf16-2gpu-docker", "vllm-docker", "mistral-small-3.1", "bf16", 2, 10),
    Row("small-4bit", "transformers", "mistral-small-3.1", "bnb-4bit", 1, 0, target=8192),
    Row("small-isq", "mistral.rs", "mistral-small-3.1", "isq-q4k", 1, 1),
    Row("magistral-q4", "ollama", "magistral-small-2506", "q4_k_m", 1, 0, cap=40960),
    Row("magistral-gguf-q4", "llama.cpp", "magistral-small-2506", "q4_k_m", 1, 0, cap=40960),
    Row("magistral-bf16", "vllm", "magistral-small-2506", "bf16", 1, 0, cap=40960),
    Row("magistral-bf16-2gpu", "vllm", "magistral-small-2506", "bf16", 2, 0, cap=40960),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.profile)
def test_a_row_of_the_source_documents_has_its_profile(row: Row, catalog: Catalog) -> None:
    profile = catalog.profile(row.profile)
    _, variant = catalog.model_of(profile)
    seen = (profile.engine, profile.model, variant.quantisation, profile.gpus[0], profile.images)
    assert seen == (row.engine, row.model, row.quantisation, row.gpus, row.images)
    assert (profile.context.target, profile.context.cap) == (row.target, row.cap)


@pytest.mark.parametrize("quantisation", ["q4_k_m", "q6_k", "q8_0", "w4a16", "fp8", "bf16", "bnb-4bit", "isq-q4k"])
def test_every_quantisation_of_mistral_small_3_1_can_be_run(quantisation: str, catalog: Catalog) -> None:
    variants = [catalog.model_of(p)[1] for p in catalog.profiles.values() if p.model == "mistral-small-3.1"]
    assert quantisation in {variant.quantisation for variant in variants}


def test_only_gpu_profiles_of_mistral_small_3_1_are_chosen_automatically(catalog: Catalog) -> None:
    automatic = [profile for profile in catalog.profiles.values() if profile.automatic]
    assert {(profile.model, profile.device, profile.offload) for profile in automatic} == {
        ("mistral-small-3.1", "gpu", False)
    }


def test_ranks_of_the_automatic_profiles_differ_and_follow_quality(catalog: Catalog) -> None:
    order = {"bf16": 0, "fp8": 1, "q8_0": 2, "q6_k": 3, "q4_k_m": 4, "w4a16": 4}
    ranked = sorted((p for p in catalog.profiles.values() if p.automatic), key=lambda profile: profile.rank)
    assert len({profile.rank for profile in ranked}) == len(ranked)
    quality = [order[catalog.model_of(profile)[1].quantisation] for profile in ranked]
    assert quality == sorted(quality)


def test_each_profile_says_what_it_is(catalog: Catalog) -> None:
    titles = [profile.title for profile in catalog.profiles.values()]  # an old name has its way's
    assert len(set(titles)) == len(titles)
    assert [name for name, profile in catalog.profiles.items() if len(profile.notes) < 40] == []


def test_profiles_listen_on_loopback(catalog: Catalog) -> None:
    assert {profile.host for profile in catalog.profiles.values()} == {"127.0.0.1"}


def test_every_engine_has_a_profile(catalog: Catalog) -> None:
    contained = {on_engine(profile, "vllm-docker").engine for profile in catalog.profiles.values()}
    assert {profile.engine for profile in catalog.profiles.values()} | contained == set(ENGINES)


def test_two_24_gb_cards_are_told_the_truth(catalog: Catalog) -> None:
    notes = catalog.profile("small-bf16").notes
    assert "22.8 GiB of weights" in notes
    assert "small-fp8" in notes
    model, bf16 = catalog.model_of(catalog.profile("small-bf16"))
    per_card = (bf16.weights_bytes / 2 + bf16.projector_bytes) / GIB
    assert round(per_card, 1) == 22.8
    assert model.architecture.text.kv_heads % 2 == 0


def test_the_repository_that_does_not_exist_is_named_and_never_used(catalog: Catalog) -> None:
    assert "mistralai/Mistral-Small-3.1-vision, which does not exist" in catalog.profile("small-bf16").notes
    repositories = {
        variant.source.repository for model in catalog.models.values() for variant in model.variants.values()
    }
    assert not [name for name in repositories if name.endswith("-vision")]


def parameters(text: Text) -> tuple[int, int]:
    """(all, in the layers' matrices) of a decoder with untied output head and one norm before each block."""
    attention = text.hidden * text.head_dim * (2 * text.heads + 2 * text.kv_heads)
    matrices = text.layers * (attention + 3 * text.hidden * text.ffn)
    return matrices + 2 * text.vocabulary * text.hidden + (2 * text.layers + 1) * text.hidden, matrices


@pytest.mark.parametrize("name", [*FAMILY, "rehearsal"])
def test_parameter_counts_follow_from_the_sizes(name: str, catalog: Catalog) -> None:
    text = catalog.models[name].architecture.text
    assert (text.parameters, text.linear_parameters) == parameters(text)


def test_the_family_shares_one_architecture(catalog: Catalog) -> None:
    family = [catalog.models[name].architecture for name in FAMILY]
    assert {architecture.text for architecture in family} == {family[0].text}
    assert {architecture.vision for architecture in family} == {family[0].vision, None}


def test_the_largest_image_takes_3080_tokens(catalog: Catalog) -> None:
    vision = catalog.models["mistral-small-3.1"].architecture.vision
    assert vision is not None
    assert (vision.max_patches, vision.max_image_tokens) == (12_100, 3_080)


def bits(variant: Variant, text: Text) -> float:
    """Bytes per parameter of the layers' matrices when the rest takes 2."""
    rest = 2 * (text.parameters - text.linear_parameters)
    return (variant.weights_bytes - rest) / text.linear_parameters


PER_PARAMETER = {"bf16": 2.0, "fp8": 1.0, "w4a16": 0.5 + 2 / 128, "nvfp4": 0.5 + 1 / 16}
PER_PARAMETER |= {"bnb-4bit": 0.5 + 1 / 64 + 1 / 4096, "bnb-8bit": 1.0, "isq-q4k": 4.5 / 8, "isq-q8_0": 8.5 / 8}


@pytest.mark.parametrize("name", FAMILY)
def test_safetensors_weights_follow_from_the_format(name: str, catalog: Catalog) -> None:
    model = catalog.models[name]
    for variant in model.variants.values():
        if variant.format.startswith("safetensors"):
            expected = PER_PARAMETER[variant.quantisation]
            assert bits(variant, model.architecture.text) == pytest.approx(expected, abs=0.001), variant.name


@pytest.mark.parametrize(
    ("variant", "gib"), [("bf16", 44.72), ("fp8", 24.02), ("w4a16", 13.99), ("bnb-4bit", 14.0), ("q4_k_m", 14.16)]
)
def test_totals_are_the_published_ones(variant: str, gib: float, catalog: Catalog) -> None:
    stored = catalog.models["mistral-small-3.1"].variants[variant]
    assert (stored.weights_bytes + stored.projector_bytes) / GIB == pytest.approx(gib, abs=0.006)


@pytest.mark.parametrize(
    ("model", "variant", "size"),
    [
        ("mistral-small-3.2", "ollama-q4_k_m", 15_177_369_888),
        ("magistral-small-2506", "ollama-q4_k_m", 14_333_907_488),
        ("magistral-small-2506", "q4_k_m", 14_333_907_488),
        ("devstral-small-2507", "q4_k_m", 14_333_918_432),
        ("mistral-small-3.1", "q4_k_m", 14_333_910_592 + 877_916_160),
        ("mistral-small-3.1", "q6_k", 19_345_952_288 + 877_916_160),
    ],
)
def test_downloads_are_the_published_files(model: str, variant: str, size: int, catalog: Catalog) -> None:
    assert catalog.models[model].variants[variant].download_bytes == size


@pytest.mark.parametrize("name", FAMILY)
def test_ggml_embeddings_stay_in_host_memory(name: str, catalog: Catalog) -> None:
    text = catalog.models[name].architecture.text
    per_element = {"q4_k_m": 0.5625, "q6_k": 0.8203125, "q8_0": 1.0625}
    for variant in catalog.models[name].variants.values():
        expected = text.vocabulary * text.hidden * per_element.get(variant.quantisation, 0)
        assert variant.host_bytes == expected, variant.name


def test_text_models_have_no_projector_and_vision_models_do(catalog: Catalog) -> None:
    for model in catalog.models.values():
        sees = model.architecture.vision is not None
        assert {variant.projector_bytes > 0 for variant in model.variants.values()} == {sees}, model.name
        assert ("vision" in model.capabilities) == sees


def test_every_variant_can_be_loaded_by_an_engine(catalog: Catalog) -> None:
    for model in catalog.models.values():
        for variant in model.variants.values():
            assert any(loads(engine, variant) for engine in ENGINES), (model.name, variant.name)


def test_each_magistral_thinks_in_its_own_way(catalog: Catalog) -> None:
    old, new = catalog.models["magistral-small-2506"], catalog.models["magistral-small-2509"]
    assert (old.reasoning, new.reasoning) == ("think-text", "think-tokens")
    assert old.system_prompt is not None
    assert new.system_prompt is not None
    lines = old.system_prompt.split("\n")
    assert lines[3] == "<think>"
    assert lines[5] == "</think>"
    assert r"NEVER use \boxed{} in your response." in lines[0]
    assert old.system_prompt.endswith("\n\nProblem:\n\n")
    assert "[THINK]Your thoughts" in new.system_prompt
    assert (old.context_limit, old.context_recommended) == (131072, 40960)


def test_sampling_is_what_the_makers_recommend(catalog: Catalog) -> None:
    sampling = {name: catalog.models[name].sampling for name in FAMILY}
    assert sampling["mistral-small-3.1"].temperature == 0.15
    magistral = sampling["magistral-small-2506"]
    assert (magistral.temperature, magistral.top_p, magistral.max_tokens) == (0.7, 0.95, 40960)


def test_prices_say_whose_they_are_and_of_when(catalog: Catalog) -> None:
    sold = {price.seller: price for price in catalog.models["mistral-small-3.1"].prices}
    assert (sold["Azure"].input_usd_per_mtok, sold["Azure"].output_usd_per_mtok) == (0.1, 0.3)
    assert sold["Mistral"].instead, "Mistral itself sells only the successor"
    for model in catalog.models.values():
        for price in model.prices:
            assert 0 < price.input_usd_per_mtok < price.output_usd_per_mtok
            assert price.date >= "2026-11"
            assert price.source


@pytest.fixture(scope="module")
def rehearsal(catalog: Catalog) -> Model:
    return catalog.models["rehearsal"]


def test_the_rehearsal_says_that_it_is_a_stand_in(rehearsal: Model, catalog: Catalog) -> None:
    profile = catalog.profile("rehearsal")
    assert rehearsal.stand_in
    assert "scripted stand-in" in profile.notes
    assert (profile.engine, profile.device, profile.automatic) == ("llama.cpp", "cpu", False)
    assert (profile.context.floor, profile.context.target, profile.context.cap) == (1024, 4096, 131072)


def test_the_rehearsals_figures_are_those_of_its_files(rehearsal: Model) -> None:
    stored = rehearsal.variants["q8_0"]
    package = Path(mscli.__file__).parent
    assert stored.source.projector is not None
    files = [package / name for name in (*stored.source.files, stored.source.projector)]
    text, projector = (gguf.GGUFReader(file) for file in files)
    assert stored.download_bytes == sum(file.stat().st_size for file in files)
    assert stored.weights_bytes == sum(int(tensor.n_bytes) for tensor in text.tensors)
    assert stored.projector_bytes == sum(int(tensor.n_bytes) for tensor in projector.tensors)
    assert stored.host_bytes == next(int(t.n_bytes) for t in text.tensors if t.name == "token_embd.weight")
    vision = rehearsal.architecture.vision
    assert vision is not None
    held = sum(int(tensor.n_elements) for tensor in projector.tensors)
    assert vision.tower_parameters + vision.projector_parameters == held
