"""`mscli up` ends with an answer of the model, and what a shell still holds does not change what is served."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.chat.streams import chunk, event, serving, stopped
from support.run_mscli import Mscli

from mscli.chat.selftest import FIRST_QUESTION, first_answer
from mscli.engines.environment import cleared, inherited
from mscli.engines.llamacpp.engine import refuse_system_settings, system_settings
from mscli.engines.llamacpp.installation import locate
from mscli.errors import MscliError

HOSTILE = {
    "llama.cpp": (
        "LLAMA_ARG_CTX_SIZE",
        "LLAMA_ARG_HOST",
        "LLAMA_API_KEY",
        "GGML_CUDA_ENABLE_UNIFIED_MEMORY",
        "HF_TOKEN",
    ),
    "ollama": ("OLLAMA_HOST", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_ORIGINS", "LLAMA_ARG_CTX_SIZE", "OLLAMA_DEBUG"),
    "vllm": ("VLLM_API_KEY", "VLLM_USE_V1", "VLLM_PORT", "VLLM_ATTENTION_BACKEND", "HF_TOKEN"),
    "mistral.rs": ("MISTRALRS_HOST", "HF_TOKEN"),
    "transformers": ("HF_TOKEN",),
}
PASSED = ("PATH", "HOME", "HTTPS_PROXY", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "VLLM_CACHE_ROOT", "HF_HOME")


@pytest.mark.parametrize("engine", HOSTILE)
def test_what_would_change_an_engine_behind_the_plan_is_cleared_and_the_rest_is_passed(engine: str) -> None:
    env = dict.fromkeys((*HOSTILE[engine], *PASSED), "1")
    assert set(inherited(engine, env)) == set(PASSED)
    assert all(row.why for row in cleared() if engine in row.engines)


def dumping(folder: Path, into: Path) -> str:
    """A PATH on which llama-server writes down its environment, and serves."""
    program = folder / "llama-server"
    program.parent.mkdir()
    told = "[ \"$1\" != --version ] || { echo 'version: 11669 (abcdef0)'; exit; }"
    program.write_text(
        f'#!/bin/sh\n{told}\nenv >"{into}"\nexec "{sys.executable}" -m mscli.engines.llamacpp.embedded "$@"\n'
    )
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def shell(tmp_path: Path) -> Mapping[str, str]:
    """A shell that holds settings of other llama.cpp servers, in variables and in a file."""
    file = tmp_path / "config" / "llama.cpp" / "config.ini"
    file.parent.mkdir(parents=True)
    file.write_text("hf-repo = somebody/else\nctx-size = 64\nhost = 0.0.0.0\n")
    return {
        "XDG_CONFIG_HOME": str(tmp_path / "config"), "LLAMA_ARG_CTX_SIZE": "64", "LLAMA_ARG_HOST": "0.0.0.0",
        "LLAMA_API_KEY": "secret", "LLAMA_ARG_MODEL": "/nowhere.gguf", "HF_TOKEN": "hf_secret",
    }  # fmt: skip


def test_up_ends_with_an_answer_and_a_hostile_shell_changes_nothing(mscli: Mscli, tmp_path: Path) -> None:
    into = tmp_path / "engine.env"
    env = {**shell(tmp_path), "PATH": dumping(tmp_path / "bin", into)}
    ran = mscli("up", "rehearsal", "--json", env=env)
    assert ran.code == 0, ran.out
    answer = ran.data["answer"]
    assert (answer["question"], answer["fault"]) == (FIRST_QUESTION, None)
    assert answer["line"].startswith("Hello!")
    assert answer["tokens"] <= 32
    assert ran.data["instance"]["context"] == ran.data["observed"]["context"] == ran.data["plan"]["context"]
    seen = dict(line.partition("=")[::2] for line in into.read_text().splitlines())
    assert not {name for name in seen if name.startswith(("LLAMA_API", "LLAMA_ARG_CTX", "LLAMA_ARG_H", "HF_TOKEN"))}
    assert not (Path(seen["XDG_CONFIG_HOME"]) / "llama.cpp").exists()
    assert Path(seen["XDG_CONFIG_HOME"]).is_relative_to(tmp_path / "home")


@pytest.mark.skipif(locate().kind == "wheel", reason="no llama-server on PATH")
def test_the_real_llama_server_serves_what_was_planned(mscli: Mscli, tmp_path: Path) -> None:
    ran = mscli("up", "rehearsal", "--json", env=shell(tmp_path))
    assert ran.data["answer"]["line"].startswith("Hello!"), ran.out
    assert ran.data["observed"]["context"] == ran.data["plan"]["context"]


def test_no_check_asks_nothing_and_for_people_the_answer_and_the_next_commands_are_shown(mscli: Mscli) -> None:
    assert mscli("up", "rehearsal", "--no-check", "--json").data["answer"] is None
    mscli("down", "rehearsal")
    shown = mscli("up", "rehearsal").out
    assert '"Hello!' in shown
    assert all(command in shown for command in ('mscli chat "hello"', "mscli logs -f", "mscli down rehearsal"))


def test_a_question_that_fails_says_why_and_raises_nothing() -> None:
    with serving(event(error={"message": "CUDA error: out of memory"})) as target:
        answer = first_answer(target)
    assert answer.line is None
    assert "CUDA error: out of memory" in str(answer.fault)
    with serving(stopped(chunk({"content": "\n \n"}))) as target:
        assert "empty" in str(first_answer(target).fault)
    with serving(stopped(chunk({"content": "\nHi.\nMore"}))) as target:
        assert first_answer(target).line == "Hi."


def test_a_machines_own_settings_that_name_another_model_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.ini"
    assert system_settings(file) == ()
    file.write_text("# ours\n[*]\nthreads = 4\n--ctx-size = 64\n")
    assert system_settings(file) == ("threads", "ctx-size")
    refuse_system_settings(locate(), file)
    file.write_text("hf-repo = somebody/else\n")
    with pytest.raises(MscliError, match="hf-repo"):
        refuse_system_settings(locate(), file)
