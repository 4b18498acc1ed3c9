"""The doctor on a real environment of vLLM, which its own Python really imports: whole, and broken from outside."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mscli.doctor.checks.check import Finding

pytestmark = pytest.mark.engines
Visit = Callable[..., list[Finding]]
REAL = os.environ.get("MSCLI_VLLM", "")


@pytest.fixture
def real() -> str:
    if not REAL:
        pytest.skip("MSCLI_VLLM names no environment")
    return REAL


def test_a_real_vllm_is_imported(real: str, visit: Visit) -> None:
    found = visit("vllm", "no-driver", asked=True, MSCLI_VLLM=real)
    assert "fail" not in {each.status for each in found}, found
    assert any("imported with torch" in each.seen for each in found)


def test_a_real_vllm_for_cpus_is_named_on_a_machine_with_gpus(real: str, visit: Visit) -> None:
    fails = [each for each in visit("vllm", "rtx4090", MSCLI_VLLM=real) if each.status == "fail"]
    assert [each.code for each in fails] == ["backend_no_gpu_build"]


@pytest.mark.parametrize(
    ("module", "text", "code"),
    [
        ("mistral_common", "raise ImportError(\"cannot import name 'MistralTokenizer' from 'mistral_common'\")",
         "mistral_common"),
        ("torch", "raise ImportError('libcudart.so.12: cannot open shared object file: No such file or directory')",
         "torch_abi"),
    ],
)  # fmt: skip
def test_a_package_from_elsewhere_that_breaks_a_real_vllm_is_named(
    real: str, visit: Visit, tmp_path: Path, module: str, text: str, code: str
) -> None:
    (tmp_path / "stray").mkdir()
    (tmp_path / "stray" / f"{module}.py").write_text(text)
    found = visit("vllm", "no-driver", asked=True, MSCLI_VLLM=real, PYTHONPATH=str(tmp_path / "stray"))
    fails = [each for each in found if each.status == "fail"]
    assert fails[0].code == code, fails
