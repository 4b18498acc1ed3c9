"""`mscli engines`: every engine of the catalogue with what it can do, and what cannot be installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.run_mscli import Mscli

from mscli.catalog.profile import ENGINES
from mscli.engines.table import STARTABLE


def test_every_engine_is_listed_with_what_it_can_do(mscli: Mscli) -> None:
    listed = {engine["name"]: engine for engine in mscli("engines", "--json").data["engines"]}
    assert set(listed) == set(ENGINES)
    for name in STARTABLE:
        able = listed[name]["capabilities"]
        assert able is not None, f"nothing is said of what {name} can do"
        assert able["kv_types"], f"no KV cache type is named for {name}"
        flags = {"vision", "tools", "reasoning", "multi_gpu", "api_key", "cpu"}
        assert {flag for flag in flags if isinstance(able[flag], bool)} == flags
        assert listed[name]["where"] or listed[name]["note"], f"{name} is neither here, nor is it said how to get it"


def test_an_engine_that_mscli_cannot_install_is_wrong_use(mscli: Mscli) -> None:
    ran = mscli("engines", "install", "nothing", "--json")
    assert (ran.code, ran.error["code"]) == (2, "usage")
    assert "nothing" in ran.error["message"]
    assert "llama.cpp" in ran.error["message"], "what can be installed is not said"


@pytest.mark.parametrize(
    ("typed", "meant"), [("llamacpp", "llama.cpp"), ("Mistral-RS", "mistral.rs"), ("vLLM", "vllm")]
)
def test_an_engine_is_known_whatever_its_dots_and_capitals(mscli: Mscli, typed: str, meant: str) -> None:
    planned = mscli("plan", "small", "--engine", typed, "--on", "H100", "--json").data["profiles"][0]
    assert planned["engine"] == meant


@pytest.mark.parametrize(
    ("words", "engine", "profile"),
    [
        ("", "mistral.rs", "small-isq"),
        ("small", "mistral.rs", "small32-isq"),
        ("mistral-small-3.1", "transformers", "small-4bit"),
        ("magistral", "transformers", "magistral-4bit"),
        ("magistral", "vllm-docker", "magistral-2509-fp8"),
        ("", "llama.cpp", "small-gguf-q8"),
    ],
)
def test_who_names_an_engine_gets_the_best_way_on_it(mscli: Mscli, words: str, engine: str, profile: str) -> None:
    """`mscli up` alone takes none of some engines' profiles: they are slower, or were tried on fewer cards."""
    planned = mscli("plan", *words.split(), "--engine", engine, "--on", "RTX 4090 x2", "--json").data
    assert planned["chosen"] == profile


@pytest.mark.parametrize(("build", "gpu", "cells"), [("+cpu", False, ["no", "yes"]), ("", True, ["yes", "no"])])
def test_what_the_copy_of_vllm_that_is_here_can_do_is_shown(
    build: str, gpu: bool, cells: list[str], mscli: Mscli, tmp_path: Path
) -> None:
    place = tmp_path / "vllm"
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "vllm").write_text(f"#!{place}/bin/python3\n")
    (place / "lib/python3.12/site-packages" / f"vllm-0.32.0{build}.dist-info").mkdir(parents=True)
    env = {"MSCLI_VLLM": str(place)}
    told = {engine["name"]: engine for engine in mscli("engines", "--json", env=env).data["engines"]}["vllm"]
    assert (told["gpu"], told["cpu"], told["version"]) == (gpu, not gpu, f"0.32.0{build}")
    row = next(line for line in mscli("engines", env=env).out.splitlines() if line.startswith("vllm "))
    assert row.split()[2:4] == cells
