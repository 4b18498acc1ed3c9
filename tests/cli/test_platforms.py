"""A machine that mscli is not for is told so in one line: another system, another maker's GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mscli.cli.main import main
from mscli.inventory.nvml import read_gpus


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_another_system_is_one_line_with_what_to_do(
    system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    code = main(["up"])
    monkeypatch.undo()
    said = capsys.readouterr().err.splitlines()
    assert code == 1
    assert said[0] == "error: mscli runs on Linux, with NVIDIA GPUs or on the CPU"
    assert "WSL2" in said[1]


@pytest.mark.parametrize(("module", "maker"), [("amdgpu", "AMD"), ("i915", "Intel"), ("xe", "Intel")])
def test_another_makers_gpu_is_named(module: str, maker: str, tmp_path: Path) -> None:
    (tmp_path / "modules").write_text(f"nfs 1 0 - Live 0x0\n{module} 1 0 - Live 0x0\n")
    failure = read_gpus(tmp_path, "none").failure
    if failure is None:
        pytest.skip("this machine has an NVIDIA driver")
    assert f"the {maker} GPU of this machine is not supported: mscli uses NVIDIA GPUs, or the CPU" in failure.message
