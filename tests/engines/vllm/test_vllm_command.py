"""vLLM's command line for a plan: by version, format, model and device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.vllm.command_lines import command, vllm

from mscli.engines.engine import Installation
from mscli.errors import MscliError


def value(argv: tuple[str, ...], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_the_documented_two_gpu_command_with_the_planned_numbers() -> None:
    argv = command().argv
    assert argv[:3] == ("/opt/v/bin/vllm", "serve", "/weights/it")
    for flag, wanted in {
        "--tokenizer-mode": "mistral", "--config-format": "mistral", "--load-format": "mistral",
        "--tool-call-parser": "mistral", "--tensor-parallel-size": "2", "--max-model-len": "65536",
        "--gpu-memory-utilization": "0.912", "--max-num-seqs": "256", "--max-num-batched-tokens": "2048",
        "--host": "127.0.0.1", "--port": "8000",
    }.items():  # fmt: skip
        assert value(argv, flag) == wanted
    assert "--enable-auto-tool-choice" in argv
    assert json.loads(value(argv, "--override-generation-config")) == {"temperature": 0.15}
    names = argv.index("--served-model-name")
    assert argv[names + 1 : names + 3] == ("mistral-small-3.1", "mistralai/Mistral-Small-3.1-24B-Instruct-2503")
    assert "--kv-cache-dtype" not in argv
    assert "--reasoning-parser" not in argv


@pytest.mark.parametrize(
    ("version", "images"),
    [
        ("0.8.1", "image=10"),
        ("0.8.4", "image=10"),
        ("0.8.5", '{"image": 10}'),
        ("0.9.2", '{"image": 10}'),
        ("0.10.0", '{"image": 10}'),
        ("0.32.0+cu130", '{"image": 10}'),
        (None, '{"image": 10}'),
    ],
)
def test_images_are_spelt_as_the_version_takes_them(version: str | None, images: str) -> None:
    assert value(command(found=vllm(version)).argv, "--limit-mm-per-prompt") == images


@pytest.mark.parametrize(("version", "says"), [("0.8.1", True), ("0.10.0", True), ("0.10.1", False), ("0.32.0", False)])
def test_prompts_stay_out_of_the_log_in_every_version(version: str, says: bool) -> None:
    assert ("--disable-log-requests" in command(found=vllm(version)).argv) is says


def test_only_models_that_think_in_tokens_get_the_parser_of_thoughts() -> None:
    assert "--reasoning-parser" not in command("magistral-bf16").argv
    assert value(command("magistral-2509-bf16").argv, "--reasoning-parser") == "mistral"
    assert "--reasoning-parser" not in command("magistral-2509-bf16", vllm("0.9.2")).argv


def test_hugging_face_files_get_none_of_the_three_format_flags() -> None:
    argv = command("small-w4a16", images=0).argv
    assert not {"--tokenizer-mode", "--config-format", "--load-format"} & set(argv)
    assert value(argv, "--limit-mm-per-prompt") == '{"image": 0}'


def test_fp8_cache_and_offload_come_from_the_plan() -> None:
    argv = command(kv_type="fp8", settings={"cpu_offload_gib": 3.5}).argv
    assert (value(argv, "--kv-cache-dtype"), value(argv, "--cpu-offload-gb")) == ("fp8", "3.5")


def test_an_option_of_the_profile_is_said_once_as_given() -> None:
    argv = command(options={"max_num_seqs": 4, "enforce-eager": True, "async-scheduling": False}).argv
    assert (argv.count("--max-num-seqs"), value(argv, "--max-num-seqs")) == (1, "4")
    assert "--enforce-eager" in argv
    assert "--async-scheduling" not in argv


def test_the_key_goes_by_file_into_the_environment() -> None:
    made = command(key=Path("/run/x/key"))
    assert made.secrets == {"VLLM_API_KEY": Path("/run/x/key")}
    assert "key" not in " ".join(made.argv)
    assert "VLLM_API_KEY" not in made.env


def test_gpus_by_uuid_and_by_number_where_uuids_are_not_known() -> None:
    assert command().env["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa,GPU-bbbb"
    old = command(found=vllm("0.23.0")).env
    assert (old["CUDA_VISIBLE_DEVICES"], old["CUDA_DEVICE_ORDER"]) == ("0,1", "PCI_BUS_ID")


def test_nothing_is_asked_of_the_hub_nor_reported() -> None:
    env = command().env
    assert (env["HF_HUB_OFFLINE"], env["VLLM_NO_USAGE_STATS"]) == ("1", "1")


def test_on_the_cpu_the_cache_takes_what_was_planned() -> None:
    env = command(found=vllm("0.32.0+cpu"), gpus=(), devices=(), tensor_parallel=1, settings={}).env
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "10"  # 65,536 tokens x 163,840 bytes
    assert "CUDA_VISIBLE_DEVICES" not in env


@pytest.mark.parametrize(
    ("found", "more", "cause"),
    [
        (vllm("0.7.3"), {}, "version_backend_old"),
        (vllm("0.32.0+cpu"), {}, "backend_no_gpu_build"),
        (vllm("0.32.0"), {"devices": (), "gpus": ()}, "build"),
        (vllm("0.20.1"), {"devices": ("MIG-1",), "gpus": (0,)}, "mig"),
    ],
)
def test_what_this_vllm_cannot_do_is_refused(found: Installation, more: dict[str, Any], cause: str) -> None:
    with pytest.raises(MscliError) as refused:
        command(found=found, **more)
    assert refused.value.details["cause"] == cause
    assert refused.value.hint


def test_a_pair_that_breaks_is_refused_with_its_pin_and_only_for_models_it_breaks() -> None:
    broken = vllm("0.32.0", mistral_common="1.13.1")
    with pytest.raises(MscliError, match=r"1\.13\.1") as refused:
        command("magistral-bf16", broken)
    assert refused.value.hint.endswith("-m pip install 'mistral_common==1.12.0'")
    assert refused.value.details["cause"] == "mistral_common"
    assert command("small-bf16", broken).argv
    assert command("magistral-bf16", vllm("0.32.0", mistral_common="1.12.0")).argv
    assert command("magistral-bf16", vllm("0.19.1", mistral_common="1.13.1")).argv


def test_a_limit_of_the_gpu_share_is_the_planners_and_the_plans_own_share_is_said() -> None:
    argv = command(options={"gpu-memory-utilization": 0.95}).argv
    assert value(argv, "--gpu-memory-utilization") == "0.912"
    assert argv.count("--gpu-memory-utilization") == 1


@pytest.mark.parametrize(
    ("version", "beside", "profile", "pin"),
    [
        ("0.33.0", {"mistral_common": "1.13.2"}, "magistral-2509-bf16", "mistral_common==1.12.0"),
        ("0.22.1", {"mistral_common": "1.10.0"}, "small-bf16", "mistral_common==1.12.0"),
        ("0.9.2", {"transformers": "4.54.1"}, "small-bf16", "transformers<4.54"),
        ("0.10.2", {"transformers": "5.1.0"}, "small-w4a16", "transformers<5"),
        ("0.10.1", {"numpy": "2.3.5", "numba": "0.61.2"}, "small-bf16", "numpy<2.3"),
    ],
)
def test_documented_pairs_are_refused_with_their_pin(
    version: str, beside: dict[str, str], profile: str, pin: str
) -> None:
    with pytest.raises(MscliError) as refused:
        command(profile, vllm(version, **beside), images=0)
    assert refused.value.hint.endswith(f"-m pip install '{pin}'")


@pytest.mark.parametrize(
    ("version", "beside", "profile"),
    [
        ("0.19.1", {"mistral_common": "1.10.0"}, "small-bf16"),
        ("0.8.5", {"transformers": "4.54.1"}, "small-bf16"),
        ("0.10.0", {"transformers": "4.54.1"}, "small-bf16"),
        ("0.10.2", {"transformers": "5.1.0"}, "small-bf16"),  # Mistral's own tokenizer is not asked
        ("0.12.0", {"transformers": "5.1.0"}, "small-w4a16"),
        ("0.10.1", {"numpy": "2.3.5", "numba": "0.62.0"}, "small-bf16"),
        ("0.16.0", {"numpy": "2.3.5", "numba": "0.61.2"}, "small-bf16"),
        ("0.26.0", {"flashinfer_cubin": "0.6.13", "flashinfer_python": "0.6.13"}, "small-bf16"),
        ("0.28.0", {"flashinfer_python": "0.6.16.post3"}, "small-bf16"),
    ],
)
def test_neighbours_of_those_pairs_are_left_alone(version: str, beside: dict[str, str], profile: str) -> None:
    assert command(profile, vllm(version, **beside), images=0).argv


def test_unequal_versions_of_flashinfer_are_refused_unless_their_check_is_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = vllm("0.26.0", flashinfer_cubin="0.6.13", flashinfer_python="0.6.14")
    with pytest.raises(MscliError, match=r"flashinfer-cubin 0\.6\.13 beside flashinfer-python 0\.6\.14") as refused:
        command(found=found)
    assert "uninstall flashinfer-cubin" in refused.value.hint
    monkeypatch.setenv("FLASHINFER_DISABLE_VERSION_CHECK", "1")
    assert command(found=found).argv
