"""A described machine, and engines made for one test; this process is their user."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.doctor.made_environment import MadeEnvironment
from support.machines.described_machines import inventory_of

from mscli.doctor.checks.check import CheckContext, Finding
from mscli.doctor.checks.run import checks, examine
from mscli.lifecycle.decision import chosen
from mscli.paths import places

TOOLS = ("sh", "cat", "sleep", "echo", "gcc", "cc")


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH; no engine is in it, nor named by a variable."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    for name in list(os.environ):
        if name.startswith(("MSCLI_", "VLLM_", "HF_", "CUDA", "LLAMA_", "OLLAMA_", "PYTHON", "TRANSFORMERS_", "GGML_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    return folder


@pytest.fixture
def environment(bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeEnvironment:
    """A healthy environment with vLLM and Transformers, named as the user's own."""
    made = MadeEnvironment(tmp_path / "env")
    made.make()
    made.torch()
    made.transformers()
    made.mistral_common()
    made.vllm()
    monkeypatch.setenv("MSCLI_VLLM", str(made.folder))
    return made


Visit = Callable[..., list[Finding]]


@pytest.fixture
def visit(bin_folder: Path, machine: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Visit:
    """Runs one check of the engines on a described machine. `asked`: as `--only engines` does."""

    def run(
        check: str, on: str = "rtx4090", profile: str | None = None, asked: bool = False, **env: str
    ) -> list[Finding]:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        wanted = chosen(profile, None, places()) if profile else None
        ctx = CheckContext(
            places(), env=dict(os.environ), chosen=wanted, asked=frozenset({"engines"}) if asked else frozenset()
        )
        ctx.once("inventory", lambda: inventory_of(on, machine), of=CheckContext.__module__)
        found = examine(ctx, [each for each in checks(("engines",)) if each.id == f"engines.{check}"])
        assert "crashed" not in {each.status for each in found}, found
        return list(found)

    return run
