"""What the doctor finds about llama.cpp, programs on PATH, variables of the shell, and whether anything can run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.doctor.made_environment import MadeEnvironment

from mscli.doctor.checks.check import Finding

Visit = Callable[..., list[Finding]]

VERSION = "version: 11669 (1a2b3c4d)\nbuilt with GNU 13.3.0 for Linux x86_64"
CUDA = "Available devices:\n  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23650 MiB free)"
NOTHING = "Available devices:"
SOFTWARE = "Available devices:\n  Vulkan0: llvmpipe (LLVM 15.0.7, 256 bits) (24105 MiB, 24105 MiB free)"
OLD_DRIVER = (
    "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version\n"
    "Available devices:"
)
LIBRARY = (
    "llama-server: error while loading shared libraries: libcudart.so.12: cannot open shared object file: No such file "
    "or directory"
)


def llama_server(folder: Path, version: str = VERSION, devices: str = CUDA, status: int = 0) -> Path:
    """A llama-server that answers these two questions."""
    path = folder / "llama-server"
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = f"cat >&2 <<'E'\n{version}\nE\nexit {status}"
    path.write_text(f"#!/bin/sh\nif [ \"$1\" = --list-devices ]; then cat <<'E'\n{devices}\nE\nexit; fi\n{answer}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, ("ok", None)),
        ({"devices": NOTHING}, ("fail", "backend_no_gpu_build")),
        ({"devices": SOFTWARE}, ("fail", "backend_no_gpu_build")),
        ({"devices": OLD_DRIVER}, ("fail", "driver_too_old")),
        ({"version": "version: 3618 (3ba780e2)"}, ("fail", "version_backend_old")),
        ({"version": LIBRARY, "status": 127}, ("fail", "engine_missing")),
    ],
    ids=["CUDA", "no back end", "a renderer on the CPU", "old driver", "old build", "a library is missing"],
)  # fmt: skip
def test_a_llama_server_is_run_for_its_version_and_its_devices(
    visit: Visit, bin_folder: Path, told: dict[str, str], expected: tuple[str, str | None]
) -> None:
    llama_server(bin_folder, **told)  # type: ignore[arg-type]
    (found,) = visit("llama.cpp")
    assert (found.status, found.code) == expected


def test_a_build_without_gpus_is_right_on_a_machine_without_them(visit: Visit, bin_folder: Path) -> None:
    llama_server(bin_folder, devices=NOTHING)
    assert visit("llama.cpp", "no-driver")[0].status == "ok"


def test_a_program_that_answers_late_is_not_called_broken(visit: Visit, bin_folder: Path) -> None:
    path = llama_server(bin_folder)
    path.write_text(path.read_text().replace("then cat", "then sleep 1.2; cat"))
    (found,) = visit("llama.cpp")
    assert found.status == "skipped"
    assert "--only engines" in found.seen
    assert visit("llama.cpp", asked=True)[0].status == "ok"


def test_the_wheel_that_comes_with_mscli_has_no_gpu_code_and_is_no_failure(visit: Visit) -> None:
    (found,) = visit("llama.cpp")
    assert (found.status, found.code) == ("warn", "backend_no_gpu_build")
    assert visit("llama.cpp", "rtx4090", "small-gguf-q4")[0].status == "fail"
    assert visit("llama.cpp", "no-driver")[0].status == "ok"


def test_the_wheel_of_mistral_rs_for_cpus_is_named_on_a_machine_with_gpus(
    visit: Visit, environment: MadeEnvironment
) -> None:
    environment.package("mistralrs", "0.9.5")
    told = {"MSCLI_MISTRALRS": str(environment.folder)}
    assert visit("mistral.rs", "no-driver", **told)[0].status == "ok"
    (found,) = visit("mistral.rs")
    assert (found.status, found.code) == ("warn", "backend_no_gpu_build")
    environment.package("mistralrs_cuda", "0.9.5")
    assert visit("mistral.rs")[0].status == "ok"


def test_a_program_on_path_that_hides_the_installed_one_is_named(
    visit: Visit, bin_folder: Path, tmp_path: Path
) -> None:
    assert visit("programs")[0].status == "ok"
    first = llama_server(bin_folder)
    llama_server(tmp_path / "home" / "data" / "engines" / "llama.cpp")
    (found,) = visit("programs")
    assert found.status == "warn"
    assert found.seen.startswith(f"{first} on PATH")


def test_two_programs_of_one_name_are_named(visit: Visit, bin_folder: Path, tmp_path: Path) -> None:
    llama_server(bin_folder)
    llama_server(tmp_path / "other")
    (found,) = visit("programs", PATH=f"{bin_folder}:{tmp_path / 'other'}")
    assert found.status == "warn"
    assert "2 programs named llama-server" in found.seen


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("VLLM_WORKER_MULTIPROC_METHOD", "fork", "fork_spawn"),
        ("VLLM_USE_V1", "0", "cli_flags"),
        ("VLLM_SOMETHING_NEW", "1", None),
        ("HF_HUB_OFFLINE", "1", "offline"),
        ("TRANSFORMERS_CACHE", "/data/cache", "model_not_found"),
        ("BNB_CUDA_VERSION", "118", "bitsandbytes"),
        ("PYTHONPATH", "/opt/ros/lib", "python_env"),
        ("LLAMA_ARG_CTX_SIZE", "2048", "cli_flags"),
    ],
)
def test_a_variable_left_over_is_named_with_what_it_does(visit: Visit, name: str, value: str, code: str | None) -> None:
    (found,) = visit("variables", **{name: value})
    assert (found.status, found.code) == ("warn", code)
    assert found.seen.startswith(f"{name}={value}: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLM_WORKER_MULTIPROC_METHOD", "spawn"),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("HF_HUB_OFFLINE", "0"),
        ("HF_TOKEN", "hf_secret"),
        ("HF_ENDPOINT", "https://huggingface.co"),
    ],
)
def test_a_variable_that_changes_nothing_is_left_out(visit: Visit, name: str, value: str) -> None:
    assert visit("variables", **{name: value})[0].status == "ok"


def test_a_password_in_a_variable_is_not_shown(visit: Visit) -> None:
    (found,) = visit("variables", HF_ENDPOINT="https://me:pass@mirror.example")
    assert "https://***@mirror.example" in found.seen
    assert "pass@" not in found.seen


def test_no_engine_for_the_gpus_is_warned_about_with_what_to_install(visit: Visit) -> None:
    (found,) = visit("usable")
    assert (found.status, found.code) == ("warn", "engine_missing")
    assert found.command == "mscli engines install ollama"


def test_an_engine_that_sees_the_gpus_is_enough(visit: Visit, bin_folder: Path) -> None:
    llama_server(bin_folder)
    (found,) = visit("usable")
    assert found.status == "ok"
    assert "llama.cpp" in found.seen
