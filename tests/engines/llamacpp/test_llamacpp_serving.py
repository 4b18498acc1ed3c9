"""A llama.cpp instance from its start to its end: readiness, what it took, who may ask, how it stops."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from support.llamacpp.llama_servers import KEY, LLAMA, PLAN, Rehearsal, weight_files
from support.tiny_models import TinyModels

from mscli.catalog.sampling import Sampling
from mscli.engines.engine import LOADING, STARTING
from mscli.weights.progress import WeightFiles

MIB = 2**20
ROUNDING = MIB // 200 + 1  # of a size that is stated in hundredths of a MiB


def test_health_says_503_while_loading_and_a_signal_then_ends_it_at_once(llama: Rehearsal) -> None:
    never_read = llama.folder / "pipe.gguf"
    os.mkfifo(never_read)
    with llama.start(WeightFiles(str(never_read), None, 0)) as server:
        server.wait_for(503)

        assert server.stop(signal.SIGTERM) == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_ready_server(llama: Rehearsal, shipped: WeightFiles, number: int) -> None:
    with llama.start(shipped) as server:
        server.wait_for(200)
        server.chat("Hello")

        assert server.stop(number) == (0 if llama.found.kind == "program" else -number), server.log


def test_a_client_that_stopped_reading_does_not_hold_up_the_end(llama: Rehearsal, shipped: WeightFiles) -> None:
    if llama.found.kind == "program":
        pytest.skip("llama-server waits for such a client, and is killed after the grace period")
    endless = {"prompt": "The weather in", "max_tokens": 2000, "stream": True}
    with llama.start(shipped) as server:
        server.wait_for(200)
        with server.stream("/v1/completions", endless) as answer:
            assert answer.readline().startswith(b"data: ")
            assert server.stop(signal.SIGTERM) == -signal.SIGTERM, server.log


def test_the_log_announces_the_stages(llama: Rehearsal, shipped: WeightFiles) -> None:
    with llama.start(shipped) as server:
        server.wait_for(200)
        stages = [stage for line in server.log.splitlines() if (stage := LLAMA.stage(line))]

    assert list(dict.fromkeys(stages)) == [STARTING, LOADING]


@pytest.mark.parametrize("users", [1, 3])
def test_each_user_gets_the_planned_context(llama: Rehearsal, shipped: WeightFiles, users: int) -> None:
    with llama.start(shipped, replace(PLAN, users=users)) as server:
        server.wait_for(200)
        props = server.request("/props").data

    assert props["total_slots"] == users
    assert props["default_generation_settings"]["n_ctx"] == PLAN.context
    assert LLAMA.observe(server.log).context == PLAN.context


def test_a_context_that_is_no_multiple_of_256_is_rounded_up(llama: Rehearsal, shipped: WeightFiles) -> None:
    with llama.start(shipped, replace(PLAN, context=1000, users=2)) as server:
        server.wait_for(200)

    assert LLAMA.observe(server.log).context == 1024


def test_weights_are_observed_as_the_catalogue_states_them(llama: Rehearsal, shipped: WeightFiles) -> None:
    with llama.start(shipped) as server:
        server.wait_for(200)
    observed = LLAMA.observe(server.log)

    assert observed.weights_bytes == pytest.approx(llama.model.variants["q8_0"].weights_bytes, abs=ROUNDING)
    assert observed.gpu_layers == (0, 3)


@pytest.mark.parametrize(("kv_type", "bytes_per_32"), [("f16", 64), ("q8_0", 34), ("q4_0", 18)])
def test_the_kv_cache_takes_what_its_type_costs(
    llama: Rehearsal, shipped: WeightFiles, kv_type: str, bytes_per_32: int
) -> None:
    plan = replace(PLAN, users=2, kv_type=kv_type)
    text = llama.model.architecture.text
    values = 2 * text.layers * text.kv_heads * text.head_dim * plan.context * plan.users
    with llama.start(shipped, plan) as server:
        server.wait_for(200)
        answer = server.chat("Hello")

    assert LLAMA.observe(server.log).kv_bytes == pytest.approx(values * bytes_per_32 // 32, abs=ROUNDING)
    assert answer.message["content"].startswith("Hello!")


def test_a_model_with_the_kv_heads_of_a_24b_takes_160_kib_per_token(llama: Rehearsal, tiny_model: TinyModels) -> None:
    with llama.start(weight_files(tiny_model(shape="kv24b")), replace(PLAN, context=1024)) as server:
        server.wait_for(200)

    assert LLAMA.observe(server.log).kv_bytes == 1024 * 160 * 1024


def test_a_request_needs_the_key_when_there_is_one(llama: Rehearsal, shipped: WeightFiles, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    with llama.start(shipped, key_file=key_file) as server:
        server.wait_for(200)

        assert server.chat("Hello").status == 401
        assert server.chat("Hello", key="another").status == 401
        assert server.chat("Hello", key=KEY).status == 200
        assert KEY not in " ".join(llama.command(shipped, server.port, key_file=key_file).argv)
        assert KEY not in server.log


def test_the_models_sampling_is_the_servers_default(llama: Rehearsal, shipped: WeightFiles) -> None:
    with llama.start(shipped, sampling=Sampling(temperature=0.7, top_p=0.9, max_tokens=None)) as server:
        server.wait_for(200)
        defaults = server.request("/props").data["default_generation_settings"]["params"]

    assert defaults["temperature"] == pytest.approx(0.7)
    assert defaults["top_p"] == pytest.approx(0.9)


def test_options_of_the_profile_are_passed_on(llama: Rehearsal, shipped: WeightFiles) -> None:
    with llama.start(shipped, options={"batch-size": 256, "no-slots": True, "no-warmup": False}) as server:
        server.wait_for(200)

        assert server.request("/slots").status == 501
        assert "n_batch               = 256" in server.log


def test_without_images_planned_the_projector_is_not_loaded(llama: Rehearsal, shipped: WeightFiles) -> None:
    with llama.start(shipped, replace(PLAN, images=0)) as server:
        server.wait_for(200)

        assert server.request("/props").data["modalities"]["vision"] is False
