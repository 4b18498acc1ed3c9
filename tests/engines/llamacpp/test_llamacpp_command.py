"""The command line that a plan becomes, and which copy of llama.cpp runs it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.llamacpp.llama_servers import LLAMA, PLAN, rehearsal

from mscli.catalog.profile import ENGINES
from mscli.engines.engine import Installation
from mscli.engines.table import STARTABLE, engine
from mscli.errors import Code, MscliError
from mscli.planning.plan import Plan
from mscli.weights.progress import WeightFiles

PROGRAM = Installation("llama.cpp", ("/opt/llama-server",), "6500 (abcdef)", "program", Path("/opt/llama-server"))
WEIGHTS = WeightFiles("/models/m.gguf", "/models/mmproj.gguf", 0)
ON_GPU = replace(PLAN, devices=("GPU-1", "GPU-2"), gpus=(0, 1), layers_on_gpu=41)


def argv(plan: Plan, tmp_path: Path, found: Installation = PROGRAM, **more: object) -> list[str]:
    return list(rehearsal(found, tmp_path).command(WEIGHTS, 8000, plan, **more).argv)  # type: ignore[arg-type]


def value(words: list[str], flag: str) -> str:
    assert words.count(flag) == 1, f"{flag} once in {words}"
    return words[words.index(flag) + 1]


def llama_server(folder: Path, script: str) -> Path:
    """An executable `llama-server` for PATH."""
    folder.mkdir()
    program = folder / "llama-server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_a_gpu_plan_names_its_devices_and_layers(tmp_path: Path) -> None:
    command = rehearsal(PROGRAM, tmp_path).command(WEIGHTS, 8000, ON_GPU)

    assert command.env["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert value(list(command.argv), "--gpu-layers") == "41"
    assert "--threads" not in command.argv


def test_a_cpu_plan_keeps_everything_off_the_gpu(tmp_path: Path) -> None:
    command = rehearsal(PROGRAM, tmp_path).command(WEIGHTS, 8000, PLAN)

    assert "CUDA_VISIBLE_DEVICES" not in command.env
    assert value(list(command.argv), "--device") == "none"
    assert "--no-mmproj-offload" in command.argv
    assert int(value(list(command.argv), "--threads")) >= 1


def test_layers_are_split_as_planned(tmp_path: Path) -> None:
    words = argv(replace(ON_GPU, settings={"tensor_split": "21,20", "ubatch_size": 256}), tmp_path)

    assert value(words, "--tensor-split") == "21,20"
    assert value(words, "--ubatch-size") == "256"


def test_the_context_is_per_user(tmp_path: Path) -> None:
    words = argv(replace(PLAN, context=8192, users=4), tmp_path)

    assert (value(words, "--ctx-size"), value(words, "--parallel")) == ("32768", "4")


def test_a_quantised_kv_cache_brings_flash_attention(tmp_path: Path) -> None:
    words = argv(replace(PLAN, kv_type="q8_0"), tmp_path)

    assert [value(words, flag) for flag in ("--cache-type-k", "--cache-type-v", "--flash-attn")] == [
        "q8_0",
        "q8_0",
        "on",
    ]


def test_options_come_last_so_that_they_win(tmp_path: Path) -> None:
    words = argv(PLAN, tmp_path, options={"ctx-size": 512, "mlock": True, "no-mmap": False})

    assert words[-3:] == ["--ctx-size", "512", "--mlock"]


@pytest.mark.parametrize("version", ["5172 (eb1776b1)", "0.1.0 (build 5172, commit abc)"])
def test_a_llama_server_that_is_too_old_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(MscliError, match="5172") as refused:
        argv(PLAN, tmp_path, replace(PROGRAM, version=version))

    assert refused.value.code is Code.ENGINE_UNSUPPORTED


def test_a_llama_server_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = llama_server(tmp_path / "bin", "echo 'version: 0.7.0 (build 11669, commit Debian)' >&2")
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    found = LLAMA.locate()

    assert (found.kind, found.argv) == ("program", (str(program),))
    assert found.version == "0.7.0 (build 11669, commit Debian)"


def test_a_llama_server_of_unknown_version_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = llama_server(tmp_path / "bin", "echo hello")
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    found = LLAMA.locate()

    assert found.version is None
    assert argv(PLAN, tmp_path, found)[0] == str(program)


def test_a_llama_server_that_does_not_run_is_reported_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "error while loading shared libraries: libcudart.so.12: cannot open shared object file"
    program = llama_server(tmp_path / "bin", f"echo 'llama-server: {said}' >&2; exit 127")
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    with pytest.raises(MscliError) as broken:
        LLAMA.locate()

    assert broken.value.code is Code.ENGINE_MISSING
    assert str(program) in broken.value.message
    assert said in broken.value.message


def test_without_a_llama_server_the_wheel_of_this_environment_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path))

    found = LLAMA.locate()

    assert (found.kind, found.argv) == ("wheel", (sys.executable, "-m", "mscli.engines.llamacpp.embedded"))
    assert found.path.is_dir()


def test_with_neither_the_way_to_get_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(MscliError) as missing:
        LLAMA.locate()

    assert missing.value.code is Code.ENGINE_MISSING
    assert "pip install 'mscli[embedded]'" in missing.value.hint


def test_an_engine_that_is_unknown_is_refused_with_those_there_are() -> None:
    with pytest.raises(MscliError, match="no engine 'tgi'") as refused:
        engine("tgi")

    assert refused.value.code is Code.ENGINE_UNSUPPORTED
    assert "llama.cpp" in refused.value.hint


def test_every_engine_of_the_catalogue_can_be_started() -> None:
    assert set(STARTABLE) == set(ENGINES)
