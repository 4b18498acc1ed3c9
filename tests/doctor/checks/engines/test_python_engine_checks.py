"""What the doctor finds in the environments of vLLM and Transformers, which a real child process imports."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.doctor.made_environment import MadeEnvironment

from mscli.doctor.checks.check import Finding

Visit = Callable[..., list[Finding]]

SYMBOL = (
    "raise ImportError('/opt/env/lib/python3.12/site-packages/vllm/_C.abi3.so: undefined symbol: "
    "_ZN5torch3jit17parseSchemaOrNameERKSsb')"
)
CUDART = "raise ImportError('libcudart.so.12: cannot open shared object file: No such file or directory')"
CV2 = "raise AttributeError(\"module 'cv2.dnn' has no attribute 'DictValue'\")"


def worst(found: list[Finding]) -> tuple[str, str | None]:
    """The status and the code of the one finding that is no `ok`; ("ok", None) without one."""
    trouble = [(each.status, each.code) for each in found if each.status != "ok"]
    assert len(trouble) < 2, trouble
    return trouble[0] if trouble else ("ok", None)


def test_an_environment_as_it_should_be_is_not_imported_unasked(environment: MadeEnvironment, visit: Visit) -> None:
    found = visit("vllm")
    assert worst(found) == ("ok", None)
    assert "also imports it" in found[0].seen


def test_an_environment_as_it_should_be_is_imported_when_asked(environment: MadeEnvironment, visit: Visit) -> None:
    found = visit("vllm", asked=True)
    assert worst(found) == ("ok", None)
    assert "imports with torch 2.9.0, transformers 5.17.0, mistral_common 1.12.0" in found[0].seen


def test_a_profile_on_vllm_asks_for_the_import_too(environment: MadeEnvironment, visit: Visit) -> None:
    assert "imports with" in visit("vllm", "h100-80", "small-bf16")[0].seen


def test_no_engine_is_no_failure_unless_a_profile_wants_it(visit: Visit) -> None:
    assert worst(visit("vllm")) == ("skipped", None)
    assert worst(visit("vllm", "h100-80", "small-bf16")) == ("fail", "engine_missing")


def test_a_named_environment_that_is_not_there_is_a_failure(visit: Visit) -> None:
    assert worst(visit("vllm", MSCLI_VLLM="/nowhere/at/all")) == ("fail", "engine_missing")


def test_a_python_that_is_gone_is_named(environment: MadeEnvironment, visit: Visit) -> None:
    environment.python.unlink()
    environment.python.symlink_to("/nowhere/python3.12")
    assert worst(visit("vllm")) == ("fail", "python_env")


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda made: made.vllm(native=SYMBOL), "torch_abi"),
        (lambda made: made.module("torch", CUDART), "torch_abi"),
        (lambda made: made.mistral_common(text=CV2), "mistral_common"),
        (lambda made: made.mistral_common(text="import no_such_package"), None),
        (lambda made: made.transformers(types="llama"), "transformers_old"),
        (lambda made: made.vllm(server="import os, signal\nos.kill(os.getpid(), signal.SIGILL)"), "build"),
        (lambda made: made.vllm(server="raise SystemExit('it gives up')"), "torch_abi"),
    ],
    ids=[
        "a symbol is missing", "CUDA's runtime is missing", "two OpenCVs", "a package is missing", "mistral3 unknown",
        "an instruction that the CPU lacks", "it ends the process",
    ],
)  # fmt: skip
def test_an_import_that_fails_is_put_down_to_its_cause(
    environment: MadeEnvironment, visit: Visit, break_it: Callable[[MadeEnvironment], None], code: str | None
) -> None:
    break_it(environment)
    fails = [each for each in visit("vllm", asked=True) if each.status == "fail"]
    assert len(fails) >= 1
    assert fails[0].code == code or (code is None and fails[0].code in ("python_env", "mistral_common"))


def test_one_cause_is_told_once_whatever_it_takes_along(environment: MadeEnvironment, visit: Visit) -> None:
    environment.module("torch", CUDART)
    environment.module("transformers", "import torch")
    environment.vllm(server="import torch")
    fails = [each for each in visit("vllm", asked=True) if each.status == "fail"]
    assert [each.code for each in fails] == ["torch_abi"]
    assert "import torch failed" in fails[0].seen


def test_a_torch_that_vllm_was_not_built_for_is_named_without_an_import(
    environment: MadeEnvironment, visit: Visit
) -> None:
    environment.torch("2.8.0")
    found = visit("vllm")
    assert worst(found) == ("fail", "torch_abi")
    assert "torch 2.8.0, vllm needs torch==2.9.0" in found[0].seen


def test_a_torch_of_another_patch_release_is_only_warned_about(environment: MadeEnvironment, visit: Visit) -> None:
    environment.torch("2.9.1")
    assert worst(visit("vllm")) == ("warn", "torch_abi")


def test_a_local_build_of_the_right_torch_is_well(environment: MadeEnvironment, visit: Visit) -> None:
    environment.torch("2.9.0+cu128")
    assert worst(visit("vllm")) == ("ok", None)


@pytest.mark.parametrize(("version", "expected"), [
    ("4.48.0", ("fail", "transformers_old")), ("6.0.0", ("warn", "python_env")),
])  # fmt: skip
def test_transformers_beside_vllm_is_held_against_what_vllm_asks_for(
    environment: MadeEnvironment, visit: Visit, version: str, expected: tuple[str, str]
) -> None:
    environment.transformers(version)
    assert worst(visit("vllm")) == expected


def test_a_missing_mistral_common_is_named(environment: MadeEnvironment, visit: Visit) -> None:
    environment.drop("mistral_common")
    assert worst(visit("vllm")) == ("fail", "mistral_common")


def test_a_mistral_common_that_breaks_this_vllm_is_named_with_its_pin(
    environment: MadeEnvironment, visit: Visit
) -> None:
    environment.mistral_common("1.13.0")
    found = [each for each in visit("vllm") if each.status != "ok"]
    assert [(each.status, each.code) for each in found] == [("warn", "mistral_common")]
    assert "mistral_common==1.12.0" in (found[0].command or "")


def test_two_distributions_of_opencv_are_named(environment: MadeEnvironment, visit: Visit) -> None:
    environment.package("opencv_python", "4.11.0")
    environment.package("opencv_python_headless", "4.11.0")
    assert worst(visit("vllm")) == ("warn", "mistral_common")


def test_a_python_outside_what_the_engine_supports_is_named(environment: MadeEnvironment, visit: Visit) -> None:
    environment.vllm(python="<3.9,>=3.8")
    assert worst(visit("vllm")) == ("fail", "python_version")


def test_a_torch_for_cpus_on_a_machine_with_gpus_is_named(environment: MadeEnvironment, visit: Visit) -> None:
    environment.torch("2.9.0+cpu", cuda=None)
    assert worst(visit("vllm")) == ("fail", "backend_no_gpu_build")
    assert worst(visit("vllm", "no-driver")) == ("ok", None)


@pytest.mark.parametrize(("machine_name", "cuda", "expected"), [
    ("driver-470", "12.8", ("fail", "driver_too_old")),
    ("driver-535", "12.8", ("fail", "driver_too_old")),
    ("rtx4090", "12.8", ("ok", None)),
    ("rtx5090", "12.4", ("fail", "cuda_arch")),
    ("rtx5090", "12.8", ("ok", None)),
    ("v100-16", "13.0", ("fail", "cuda_arch")),
])  # fmt: skip
def test_the_cuda_of_the_build_is_held_against_driver_and_gpu(
    environment: MadeEnvironment, visit: Visit, machine_name: str, cuda: str, expected: tuple[str, str | None]
) -> None:
    environment.torch(cuda=cuda)
    assert worst(visit("vllm", machine_name)) == expected


def test_the_list_of_architectures_is_asked_of_torch_itself(environment: MadeEnvironment, visit: Visit) -> None:
    environment.torch(codes="sm_75 sm_80 sm_86 sm_90")
    assert worst(visit("vllm", "rtx5090", asked=True)) == ("fail", "cuda_arch")
    environment.torch(codes="sm_75 sm_80 sm_86 compute_90")
    assert worst(visit("vllm", "rtx5090", asked=True)) == ("ok", None)


def test_a_missing_compiler_is_warned_about_where_triton_needs_one(
    environment: MadeEnvironment, visit: Visit, bin_folder: Path
) -> None:
    environment.package("triton", "3.5.0")
    assert "python_env" not in {each.code for each in visit("vllm")} or not shutil.which("gcc")
    for name in ("gcc", "cc"):
        (bin_folder / name).unlink(missing_ok=True)
    found = [each for each in visit("vllm") if each.status != "ok"]
    assert [(each.status, each.code) for each in found] == [("warn", "python_env")]


def test_a_cuda_home_of_two_folders_is_named(environment: MadeEnvironment, visit: Visit) -> None:
    assert worst(visit("vllm", CUDA_HOME=":/usr/local/cuda-12.8")) == ("warn", "nvcc_jit")


def test_kernels_that_are_compiled_at_a_start_without_nvcc_are_named(
    environment: MadeEnvironment, visit: Visit
) -> None:
    environment.package("flashinfer_python", "0.4.1")
    found = visit("vllm")
    assert worst(found) == ("warn", "nvcc_jit")
    assert worst(visit("vllm", VLLM_USE_FLASHINFER_SAMPLER="0")) == ("ok", None)


@pytest.fixture
def transformers(environment: MadeEnvironment, monkeypatch: pytest.MonkeyPatch) -> MadeEnvironment:
    """The same environment as the user's own for Transformers."""
    environment.package("accelerate", "1.11.0")
    monkeypatch.setenv("MSCLI_TRANSFORMERS", str(environment.folder))
    return environment


def test_an_environment_of_transformers_as_it_should_be_is_well(transformers: MadeEnvironment, visit: Visit) -> None:
    found = visit("transformers", asked=True)
    assert worst(found) == ("ok", None)
    assert "imports with" in found[0].seen


@pytest.mark.parametrize(("native", "expected"), [("True", ("ok", None)), ("False", ("fail", "bitsandbytes"))])
def test_bitsandbytes_without_its_library_for_the_gpu_is_named(
    transformers: MadeEnvironment, visit: Visit, native: str, expected: tuple[str, str | None]
) -> None:
    library = f"class lib:\n    compiled_with_cuda = {native}\n"
    transformers.package("bitsandbytes", "0.49.0", bitsandbytes__cextension=library)
    assert worst(visit("transformers", asked=True)) == expected


def test_a_transformers_without_mistral3_is_too_old(transformers: MadeEnvironment, visit: Visit) -> None:
    transformers.transformers("4.49.0", types="mistral")
    assert worst(visit("transformers", asked=True)) == ("fail", "transformers_old")
