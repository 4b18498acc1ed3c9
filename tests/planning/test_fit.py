"""One profile on one machine: what is planned, what is refused and why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.planning.planned import DESKTOP, changed, held, holder, linked, on, pair, plan, refusal, verdict

from mscli.planning.plan import GIB, SAFE, TIGHT, NoFit, Overrides, Plan
from mscli.planning.request import too_short


def test_q4_on_one_24_gb_card_leaves_room_for_about_50_000_tokens() -> None:
    found = plan("small-q4", "RTX 4090")
    assert found.verdict == SAFE
    assert found.kv_type == "f16"
    assert 44_000 < found.context < 52_000
    assert found.context % 256 == 0
    assert found.memory[0].margin_bytes >= 1.2 * GIB


def test_a_desktop_gets_less_context_than_a_headless_card() -> None:
    desktop = plan("small-q4", on("RTX 4090", used=DESKTOP))
    assert desktop.context < plan("small-q4", "RTX 4090").context
    assert desktop.verdict == SAFE


def test_bf16_on_one_h100_reaches_the_whole_context_with_images() -> None:
    found = plan("small-bf16", "H100")
    assert (found.context, found.kv_type, found.images) == (131072, "f16", 10)
    assert found.memory[0].kv_bytes == 20 * GIB


def test_bf16_over_two_5090_reaches_about_50_000_tokens() -> None:
    found = plan("small-bf16", "2x RTX 5090")
    assert found.tensor_parallel == 2
    assert 45_000 < found.context < 53_000


def test_bf16_over_two_24_gb_cards_is_refused_with_the_figures() -> None:
    found = refusal("small-bf16", "2x RTX 4090")
    assert found.missing_bytes > 2 * GIB
    assert "weights 22.8 GiB" in found.reasons[0]
    assert "on each of 2 GPUs" in found.reasons[0]
    assert found.nearest == "--variant fp8"


def test_for_agents_a_smaller_kv_type_and_more_than_the_target_are_taken_to_reach_the_context() -> None:
    agents = Overrides(least_context=32_768)
    seeing = replace(agents, images=4)
    squeezed, without = (
        plan("small-gguf-q6", "RTX 4090", seeing),
        plan("small-gguf-q6", "RTX 4090", Overrides(images=4)),
    )
    assert (without.context, squeezed.context, squeezed.kv_type) == (20_224, 32_768, "q8_0")
    assert (plan("small-4bit", "RTX 4090").context, plan("small-4bit", "RTX 4090", agents).context) == (8192, 32_768)
    assert plan("small-q4", "RTX 4090", agents).context == plan("small-q4", "RTX 4090").context
    assert plan("small-q4", "RTX 4090", replace(agents, context=8192)).context == 8192


def test_for_agents_the_longest_context_is_taken_where_none_is_long_enough_and_said_so() -> None:
    agents = Overrides(least_context=32_768)
    profile, model = pair("small-gguf-q4-text")
    short = plan(profile.name, "RTX 4060 Ti", agents)
    assert short.context == 10_240
    assert "10,240 tokens here; coding agents want 32,768" in str(too_short(short, model, agents))
    assert too_short(short, model, Overrides()) is None
    assert too_short(plan(profile.name, "RTX 4090", agents), model, agents) is None


def test_offloading_happens_by_name_only() -> None:
    found = plan("small-bf16", "2x RTX 4090", Overrides(offload=True, images=0, context=8192))
    assert found.gpus == (0, 1), "one card alone would leave far more in host memory"
    assert found.layers_on_gpu < 41
    assert found.host_bytes > GIB
    assert any("host memory" in step for step in found.steps)
    assert float(found.settings["cpu_offload_gib"]) > 0


def test_offloading_needs_host_memory() -> None:
    found = refusal("small-bf16", on("2x RTX 4090", ram=4 * GIB), Overrides(offload=True))
    assert "host memory" in found.reasons[0]


@pytest.mark.parametrize(("cards", "capability"), [("T4", "7.5"), ("V100-SXM2-32GB", "7.0")])
def test_bf16_needs_ampere(cards: str, capability: str) -> None:
    found = refusal("small-bf16", cards)
    assert capability in found.reasons[0]
    assert "8.0" in found.reasons[0]
    assert found.missing_bytes == 0


def test_fp8_runs_weight_only_on_ampere_and_says_so() -> None:
    assert any("weight-only" in reason for reason in plan("small-fp8", "A6000").reasons)
    assert not any("weight-only" in reason for reason in plan("small-fp8", "L40S").reasons)


def test_utilisation_passes_vllm_s_start_up_check() -> None:
    """vLLM refuses to start when utilisation x CUDA total is not free after its context is made, on any GPU."""
    for where in (on("RTX 4090"), on("RTX 4090", used=DESKTOP), on("2x A6000", used=5 * GIB), on("H100")):
        found = verdict("small-w4a16", where) if len(where.devices) == 1 else verdict("small-fp8-2gpu", where)
        assert isinstance(found, Plan), found
        for gpu in found.memory:
            budget = float(found.settings["gpu_memory_utilization"]) * (gpu.total_bytes - 0.6 * GIB)
            assert budget <= gpu.free_bytes - 0.4 * GIB


def test_vllm_s_pool_is_told_apart_from_the_planned_cache() -> None:
    """vLLM fills its budget: what it takes beyond the plan is named, and counted as taken."""
    gpu = plan("small-bf16", "H200").memory[0]
    assert gpu.kv_bytes == 20 * GIB
    assert gpu.kv_spare_bytes > 40 * GIB
    assert gpu.needed_bytes <= gpu.free_bytes


@pytest.mark.parametrize(
    ("overrides", "context"),
    [(Overrides(context=4096), 4096), (Overrides(context=10_000), 10_000), (Overrides(prefer="context"), None)],
)
def test_context_by_wish(overrides: Overrides, context: int | None) -> None:
    found = plan("small-q4", "RTX 4090", overrides)
    assert found.context == (context or found.context)
    if overrides.prefer == "context":
        assert found.kv_type == "q8_0"
        assert found.context > 80_000


def test_quantised_kv_is_the_second_step_and_named() -> None:
    found = plan("small-q4", "RTX 4090", Overrides(context=65536))
    assert found.kv_type == "q8_0"
    assert any(step.startswith("q8_0 KV cache: f16 ") for step in found.steps)


@pytest.mark.parametrize(
    ("overrides", "word", "nearest"),
    [
        (Overrides(context=131072, kv_type="f16"), "131,072 tokens", "--kv q8_0|--kv q4_0"),
        (Overrides(context=200_000), "200000", "--ctx 131072"),
        (Overrides(kv_type="fp8"), "no fp8 KV cache", "--kv q4_0"),
        (Overrides(users=64, context=8192), "64 x 8,192 tokens", "--users"),
        (Overrides(gpus=("3",)), "--gpus 3", "--gpus 0"),
        (Overrides(variant="q5"), "no variant q5", "--variant"),
        (Overrides(engine="vllm"), "runs on ollama", "--engine ollama"),
        (Overrides(users=0), "--users 0", "--users 1"),
    ],
)
def test_an_impossible_wish_says_which_number_breaks_and_what_works(
    overrides: Overrides, word: str, nearest: str
) -> None:
    found = refusal("small-q4", "RTX 4090", overrides)
    assert word in found.reasons[0]
    assert found.nearest is not None
    assert any(found.nearest.startswith(flag) for flag in nearest.split("|"))


@pytest.mark.parametrize(
    ("name", "cards", "overrides"),
    [
        ("small-q4", "RTX 4090", Overrides(context=131072, kv_type="f16")),
        ("small-q4", "RTX 5070 Ti", Overrides()),
        ("small-w4a16", "RTX 4090", Overrides(users=4, context=32768)),
        ("small-fp8", "RTX 4090", Overrides()),
        ("small-bf16", "2x RTX 4090", Overrides()),
    ],
)
def test_the_nearest_flag_works_when_typed(name: str, cards: str, overrides: Overrides) -> None:
    flag, value = str(refusal(name, cards, overrides).nearest).split(" ")
    field, kind = {"--ctx": ("context", int), "--kv": ("kv_type", str), "--variant": ("variant", str)}[flag]
    assert isinstance(verdict(name, cards, replace(overrides, **{field: kind(value)})), Plan)  # type: ignore[arg-type]


def test_text_only_models_refuse_images() -> None:
    found = refusal("magistral-q4", "RTX 4090", Overrides(images=1))
    assert found.nearest == "--images 0"


def test_images_that_would_fill_the_context_are_remarked_on() -> None:
    """The largest image is 3,080 tokens for vLLM, 1,024 for llama.cpp."""
    assert any(
        "30,800 tokens" in reason for reason in plan("small-bf16", "H100", Overrides(context=16384, images=10)).reasons
    )
    assert not any("images of the" in reason for reason in plan("small-bf16", "H100", Overrides(images=10)).reasons)
    assert any(
        "4,096 tokens" in reason for reason in plan("small-q4", "A6000", Overrides(context=2048, images=4)).reasons
    )


def test_magistral_stays_within_its_recommended_context() -> None:
    assert plan("magistral-bf16", "H100").context == 40960


def test_beyond_the_recommended_context_is_possible_and_said() -> None:
    found = plan("magistral-bf16", "H200", Overrides(context=131072))
    assert found.context == 131072
    assert any("recommended" in reason for reason in found.reasons)


def test_a_refusal_names_who_holds_the_memory() -> None:
    full = held(on("RTX 4090"), 0, holder(4242, 16, container="jupyter-1"), holder(77, 0.3, "Xorg"))
    reasons = " ".join(refusal("small-q4", full).reasons)
    assert "PID 4242 python train.py in container jupyter-1 (16.0 GiB)" in reasons
    assert "Xorg" in reasons


def test_holders_who_make_no_difference_are_not_blamed() -> None:
    reasons = " ".join(refusal("small-bf16", held(on("RTX 4090"), 0, holder(4242, 2))).reasons)
    assert "4242" not in reasons


def test_the_emptier_card_is_taken() -> None:
    busy = held(on("2x RTX 4090"), 0, holder(4242, 10))
    assert plan("small-q4", busy).gpus == (1,)


def test_gpus_joined_by_nvlink_are_preferred() -> None:
    four = linked(on("4x A6000"), (0, 1), (2, 3))
    busy = changed(four, 0, lambda device: replace(device, free_bytes=40 * GIB))
    found = plan("small-bf16", busy)
    assert found.gpus == (2, 3)
    assert any("NVLink" in reason for reason in found.reasons)


def test_memory_beats_nvlink_when_only_it_fits() -> None:
    four = linked(on("4x A6000"), (0, 1))
    busy = changed(four, 0, lambda device: replace(device, free_bytes=10 * GIB))
    assert plan("small-bf16", busy).gpus == (1, 2)


def test_nvlink_does_not_cost_context() -> None:
    """The linked pair would do, but another pair holds twice as much."""
    four = linked(on("4x RTX 5090"), (0, 1))
    busy = changed(four, 0, lambda device: replace(device, free_bytes=29 * GIB))
    assert plan("small-fp8-2gpu", busy).gpus == (0, 1)
    busier = changed(four, 0, lambda device: replace(device, free_bytes=18 * GIB))
    assert plan("small-fp8-2gpu", busier).gpus == (1, 2)


def test_layers_stay_on_gpus_when_more_gpus_hold_them() -> None:
    found = plan("small-q8", "2x RTX 4090", Overrides(offload=True))
    assert (found.gpus, found.layers_on_gpu) == ((0, 1), 41)


def test_gpus_by_name_are_taken_as_they_are() -> None:
    assert plan("small-bf16", "4x A6000", Overrides(gpus=("3", "1"))).gpus == (3, 1)


def test_tensor_parallel_sizes_divide_the_heads() -> None:
    found = refusal("small-bf16", "3x A6000", Overrides(gpus=("0", "1", "2")))
    assert "32 attention heads over 3 GPUs" in found.reasons[0]
    assert found.nearest == "--gpus 0,1"


def test_mig_instances_never_work_together() -> None:
    sliced = on("2x H100", free=9 * GIB)
    for index in (0, 1):
        sliced = changed(sliced, index, lambda item: replace(item, mig=True, total_bytes=10 * GIB))
    assert "MIG" in refusal("small-bf16-2gpu", sliced).reasons[0]


def test_unknown_memory_is_said() -> None:
    lost = changed(on("RTX 4090"), 0, lambda device: replace(device, total_bytes=None, free_bytes=None))
    assert "unknown" in refusal("small-q4", lost).reasons[0]


def test_a_gpu_that_cannot_be_planned_on_is_named_beside_the_plan() -> None:
    lost = changed(on("2x RTX 4090"), 0, lambda device: replace(device, total_bytes=None, free_bytes=None))
    found = plan("small-q4", lost)
    assert found.gpus == (1,)
    assert any("GPU 0" in reason and "unknown" in reason for reason in found.reasons)


def test_too_few_gpus_say_how_many_are_needed_and_whether_one_would_do() -> None:
    found = refusal("small-fp8-2gpu", "A6000")
    assert "needs 2 or 4 GPUs; 1 can be used" in found.reasons[0]
    assert found.nearest == "--gpus 0"
    assert plan("small-fp8-2gpu", "A6000", Overrides(gpus=("0",))).tensor_parallel == 1


def test_small_mig_slices_hold_no_24b() -> None:
    sliced = changed(on("H100"), 0, lambda item: replace(item, mig=True, total_bytes=10 * GIB, free_bytes=10 * GIB))
    assert refusal("small-q4", sliced).missing_bytes > 4 * GIB


def test_unified_memory_is_the_host_s() -> None:
    found = plan("small-bf16", on("GB10"))
    assert found.memory[0].total_bytes == 128 * 10**9


def test_no_gpu_is_a_refusal_not_a_cpu_run() -> None:
    none = replace(on("RTX 4090"), devices=(), gpus=())
    assert "no GPU" in refusal("small-q4", none).reasons[0]


def test_cpu_profiles_use_host_memory() -> None:
    found = plan("small-cpu", on("RTX 4090", ram=32 * GIB))
    assert (found.gpus, found.memory, found.layers_on_gpu) == ((), (), 0)
    assert 13 * GIB < found.host_bytes < 18 * GIB
    short = refusal("small-cpu", on("RTX 4090", ram=12 * GIB))
    assert short.missing_bytes > 0
    assert "host memory" in short.reasons[0]


@pytest.mark.parametrize(
    ("driver", "version", "fits"),
    [("535.183.01", None, False), ("535.183.01", "0.24.0", True), ("550.54.14", "0.30.1", True)],
)
def test_new_ollama_needs_a_newer_driver(driver: str, version: str | None, fits: bool) -> None:
    where = replace(on("A6000"), driver=driver, cuda="12.4")
    versions = {"ollama": version} if version else {}
    assert isinstance(verdict("small-q4", where, versions=versions), Plan) is fits


def test_old_ollama_does_not_fit_24_gb_because_of_its_image_graph() -> None:
    assert isinstance(verdict("small-q4", "RTX 4090", versions={"ollama": "0.11.7"}), NoFit)
    assert isinstance(verdict("magistral-q4", "RTX 4090", versions={"ollama": "0.11.7"}), Plan)


def test_the_driver_s_cuda_is_checked() -> None:
    old = replace(on("H100"), cuda="11.4", driver="470.82.01")
    assert "CUDA 11.4" in refusal("small-bf16", old).reasons[0]
    unknown = plan("small-bf16", replace(on("H100"), driver="580.95.05"))
    assert any("CUDA version is unknown" in reason for reason in unknown.reasons)


def test_three_to_eight_percent_left_is_tight() -> None:
    free = plan("small-q4", "RTX 4090").memory[0].needed_bytes
    found = plan("small-q4", on("RTX 4090", free=free + GIB), Overrides(context=plan("small-q4", "RTX 4090").context))
    assert found.verdict == TIGHT or found.kv_type != "f16"


def test_windows_gets_no_tight_plans() -> None:
    """Below 1.2 GiB of headroom Windows spills silently to host memory: slow instead of refused."""
    tight = on("T4")
    assert plan("small-gguf-q4-text", tight, Overrides(context=4096)).verdict == TIGHT
    wsl = replace(tight, host=replace(tight.host, surroundings="wsl"))
    assert refusal("small-gguf-q4-text", wsl, Overrides(context=4096)).missing_bytes > 0
    roomy = replace(on("RTX 4090"), host=wsl.host)
    assert any("Windows" in reason for reason in plan("small-q4", roomy).reasons)


def test_disk_that_is_short_is_a_remark() -> None:
    small = on("H100")
    small = replace(small, host=replace(small.host, disk_free_bytes=10 * GIB))
    assert any("disk" in reason for reason in plan("small-bf16", small).reasons)
