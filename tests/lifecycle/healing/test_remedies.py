"""What is changed after which failure: by the words that engines have said, on plans of shipped profiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mscli.catalog.gpus import load_gpus
from mscli.catalog.load import load_one
from mscli.catalog.profile import OptionValue
from mscli.diagnosis.diagnose import start_failure
from mscli.lifecycle.decision import Decision, plan_one
from mscli.lifecycle.healing.flag_renames import respelt
from mscli.lifecycle.healing.remedies import Failure, remedies
from mscli.lifecycle.snapshot import imagine
from mscli.paths import shipped_profiles
from mscli.planning.described_machine import machine
from mscli.planning.plan import Overrides, Plan

LOADED = "INFO Model loading took 14.9 GiB memory and 8 seconds\n"
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 256.00 MiB."


def failure(log: str, name: str = "small-fp8", cards: str = "2x RTX 4090", **more: Any) -> Failure:
    """The failure of a shipped profile on another machine; `more` goes into its profile, overrides or itself."""
    overrides = more.pop("overrides", Overrides())
    profile, model = load_one(name, shipped_profiles(), None)
    profile = replace(profile, **more.pop("profile", {}))
    snapshot = imagine(machine(cards, load_gpus(shipped_profiles())))
    plan = plan_one(profile, model, snapshot, overrides)
    assert isinstance(plan, Plan), plan
    decision = Decision(profile, model, model.variants[plan.variant], plan, snapshot, None)
    code = start_failure(log, plan.engine, 1).code
    return replace(Failure(code, log, decision, overrides, None, 1), **more)


def tried(found: Failure) -> list[str]:
    """The changes in order, in words."""
    return [change.what for change in remedies(found)]


@pytest.mark.parametrize(
    ("log", "first"),
    [
        (f"{LOADED}RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests.",
         "--max-num-seqs 64"),
        (f"{LOADED}Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 12%\n{OOM}", "--enforce-eager"),
        ("ValueError: The model's max seq len (29000) is larger than the maximum number of tokens that can be stored "
         "in KV cache (23648). Try increasing `gpu_memory_utilization`", "a context of at most 23,552 tokens"),
        ("ValueError: Free memory on device cuda:0 (17.5/23.53 GiB) on startup is less than desired GPU memory "
         "utilization (0.9, 21.2 GiB).", "--gpu-memory-utilization 0.733"),
        ('File "/v/site-packages/flashinfer/jit/core.py", line 12\nRuntimeError: Could not find nvcc and default '
         "cuda_home='/usr/local/cuda' doesn't exist", "VLLM_USE_FLASHINFER_SAMPLER=0"),
        ("torch._inductor.exc.InductorError: RuntimeError: Failed to find C compiler. Please specify via CC",
         "--enforce-eager"),
        ("RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use "
         "the 'spawn' start method", "VLLM_WORKER_MULTIPROC_METHOD=spawn"),
        ("custom_all_reduce.py:203 Custom allreduce failed: peer access is not supported between these two devices",
         "--disable-custom-all-reduce, NCCL_P2P_DISABLE=1"),
        ("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU",
         "--dtype half"),
        ("Value error, User-specified max_model_len (65536) is greater than the derived max_model_len "
         "(max_position_embeddings=32768.0 or model_max_length=None", "a context of at most 32,768 tokens"),
        ("ValueError: Chunked MM input disabled but max_tokens_per_mm_item (3025) is larger than "
         "max_num_batched_tokens (2048). Please increase max_num_batched_tokens.", "--max-num-batched-tokens 3025"),
    ],
)  # fmt: skip
def test_what_vllm_says_names_the_first_change(log: str, first: str) -> None:
    assert tried(failure(log))[0] == first


@pytest.mark.parametrize(
    "log",
    [
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
        f"INFO Starting to load model\n{OOM}",
        "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
        "huggingface_hub.errors.GatedRepoError: 401 Client Error.",
        "undefined symbol: _ZN3c104cuda9SetDeviceEi in vllm/_C.abi3.so: undefined symbol",
        "OSError: [Errno 28] No space left on device",
        "vllm: error: unrecognized arguments: --teleport",
    ],
)
def test_what_takes_a_person_changes_nothing(log: str) -> None:
    assert tried(failure(log)) == []


def test_gpus_that_do_not_reach_each_other_are_no_matter_on_one() -> None:
    log = "custom_all_reduce.py:203 Custom allreduce failed: peer access is not supported"
    assert tried(failure(log, "small-fp8", "RTX 5090")) == []


def test_memory_that_went_since_the_plan_is_planned_anew() -> None:
    log = f"INFO Starting to load model\n{OOM}"
    assert tried(failure(log, lost_bytes=2**30)) == ["a new plan for what is free now"]


def test_without_an_estimate_the_context_is_halved_then_quartered_then_the_floor() -> None:
    log = "ValueError: No available memory for the cache blocks."
    found = failure(log)
    context, floor = found.plan.context, found.profile.context.floor
    steps = [tried(replace(found, number=number))[0] for number in (1, 2, 3)]
    halves = [max(floor, context // share // 256 * 256) for share in (2, 4)]
    assert steps == [f"a context of at most {tokens:,} tokens" for tokens in (*halves, floor)]


def test_a_context_below_the_floor_is_not_tried() -> None:
    log = "the estimated maximum model length is 512. max seq len (65536)"
    assert not any("context" in change for change in tried(failure(log)))


@pytest.mark.parametrize(
    ("overrides", "stays"),
    [
        (Overrides(context=8192), "context"),
        (Overrides(kv_type="f16"), "KV"),
        (Overrides(users=4), "user"),
        (Overrides(images=3), "image"),
    ],
)
def test_what_was_asked_for_stays(overrides: Overrides, stays: str) -> None:
    for log in ("No available memory for the cache blocks", f"{LOADED}{OOM}"):
        more = {"profile": {"users": 4, "images": 4, "kv_types": ("f16", "fp8")}}
        assert not any(stays in change for change in tried(failure(log, overrides=overrides, **more)))


def test_a_kv_type_asked_for_beside_the_profiles_own_is_no_trouble() -> None:
    found = failure(
        "No available memory for the cache blocks", overrides=Overrides(kv_type="fp8"), profile={"kv_types": ("f16",)}
    )
    assert not any("KV" in change for change in tried(found))


def test_a_port_that_was_asked_for_stays() -> None:
    log = "OSError: [Errno 98] Address already in use"
    assert tried(failure(log)) == ["another port"]
    assert tried(failure(log, port=8000)) == []


@pytest.mark.parametrize(
    ("log", "first"),
    [
        ("ggml_aligned_malloc: insufficient memory (attempted to allocate 20480.00 MB)\nfailed to allocate buffer for "
         "kv cache", "a context of at most"),
        ("llama_kv_cache: CUDA0 KV buffer size = 20480.00 MiB\nggml_gallocr_reserve_n_impl: failed to allocate CUDA0 "
         "buffer\nggml_backend_cuda_buffer_type_alloc_buffer: allocating 300.00 MiB on device 0: cudaMalloc failed: "
         "out of memory", "a context of at most"),
        ("llama_init_from_model: K cache type q8_0 with block size 32 does not divide n_embd_head_k=80", "f16 KV"),
    ],
)  # fmt: skip
def test_what_llamacpp_says_names_the_first_change(log: str, first: str) -> None:
    found = failure(log, "small-gguf-q4", "RTX 4090")
    if "q8_0" in log:
        found = replace(
            found, decision=replace(found.decision, profile=replace(found.profile, kv_types=("q8_0", "f16")))
        )
    assert tried(found)[0].startswith(first)


def test_weights_that_do_not_fit_are_no_matter_of_context() -> None:
    log = "alloc_tensor_range: failed to allocate CPU buffer of size 14000\nunable to allocate CPU buffer"
    assert tried(failure(log, "small-cpu", "RTX 4090", cause="host_ram")) == []


RESPELT: list[tuple[str, str, dict[str, OptionValue], dict[str, OptionValue] | None]] = [
    ("vllm", "vllm: error: unrecognized arguments: --swap-space 4 --disable-log-requests",
     {"swap-space": 4, "disable_log_requests": True}, {"swap-space": False, "disable_log_requests": False}),
    ("vllm", "vllm: error: unrecognized arguments: --guided-decoding-backend xgrammar",
     {"guided-decoding-backend": "xgrammar"},
     {"guided-decoding-backend": False, "structured-outputs-config": '{"backend": "xgrammar"}'}),
    ("vllm", "vllm: error: unrecognized arguments: --cuda-graph-sizes 8", {"cuda_graph_sizes": 8},
     {"cuda_graph_sizes": False, "cudagraph-capture-sizes": 8}),
    ("vllm", "vllm serve: error: ambiguous option: --device could match --device-ids, --device-memory-utilization",
     {"device": "cuda"}, {"device": False}),
    ("vllm", "vllm serve: error: argument --limit-mm-per-prompt: Value image=10,video=0 cannot be converted to <func",
     {"limit-mm-per-prompt": "image=10,video=0"}, {"limit-mm-per-prompt": '{"image": 10, "video": 0}'}),
    ("vllm", "vllm serve: error: argument --tokenizer-mode: invalid choice: 'mistrall' (choose from 'auto', 'mistral')",
     {"tokenizer-mode": "mistrall"}, {"tokenizer-mode": "mistral"}),
    ("vllm", "vllm: error: unrecognized arguments: true", {"enforce-eager": "true"}, {"enforce-eager": True}),
    ("vllm", "vllm: error: unrecognized arguments: --swap-space 4 --teleport",
     {"swap-space": 4, "teleport": True}, None),
    ("vllm", "vllm: error: unrecognized arguments: --enforce-eagr\nThe closest flag that this vLLM accepts is "
     "--enforce-eager.", {"enforce-eagr": True}, {"enforce-eagr": False, "enforce-eager": True}),
    ("vllm", "vllm: error: unrecognized arguments: --fast\nThe closest flag that this vLLM accepts is --task.",
     {"fast": True}, None),
    ("vllm", "vllm: error: unrecognized arguments: --of-mscli-itself", {"swap-space": 4}, None),
    ("vllm", "vllm serve: error: argument --seed: invalid int value: 'many'", {"seed": "many"}, None),
    ("llama.cpp", 'error while handling argument "--flash-attn": unknown value \'--jinja\'', {"flash-attn": True},
     {"flash-attn": "on"}),
    ("llama.cpp", 'error while handling argument "--cache-type-k": Unsupported cache type: q9', {"cache_type_k": "q9"},
     {"cache_type_k": False}),
    ("llama.cpp", "error: invalid argument: --np", {"np": 4}, {"np": False}),
    ("transformers", "Error: No such option: --quantisation Did you mean --quantization?", {"quantisation": "bnb-4bit"},
     {"quantisation": False, "quantization": "bnb-4bit"}),
    ("mistral.rs", "error: unexpected argument '--prefix-cach-n' found\n  tip: a similar argument exists: "
     "'--prefix-cache-n'", {"prefix-cach-n": 2}, {"prefix-cach-n": False, "prefix-cache-n": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "log", "options", "wanted"), RESPELT, ids=[case[1][:60] for case in RESPELT])
def test_refused_flags_are_respelt_or_left_to_a_person(
    engine: str, log: str, options: dict[str, OptionValue], wanted: dict[str, OptionValue] | None
) -> None:
    assert respelt(engine, log, options) == wanted
