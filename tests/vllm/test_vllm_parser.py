"""The command lines of shipped profiles before the parser of a real vLLM."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CACHE
from test_vllm_command import command

from mscli.engines.engine import Installation
from mscli.engines.vllm_installation import installation
from mscli.engines.vllm_parser import check_flags
from mscli.errors import Code, MscliError

pytestmark = pytest.mark.engines


@pytest.fixture
def found(vllm_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """The vLLM under test, as if it had GPU code: the parser is the same."""
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path))
    seen = installation(vllm_place / "bin" / "vllm", "named")
    return replace(seen, version=(seen.version or "").partition("+")[0])


@pytest.fixture(params=["0.10.2", "0.22.1"])
def older(request: pytest.FixtureRequest, found: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """An older vLLM's parser, which runs on the packages of the one under test."""
    sources = CACHE / f"older-vllm-{request.param}"
    assert sources.is_dir(), "tests/run_engines vllm installs it"
    monkeypatch.setenv("PYTHONPATH", str(sources))
    return replace(found, version=request.param, beside={})


@pytest.mark.parametrize(
    ("profile", "more"),
    [
        ("small-bf16-2gpu", {}),
        ("small-w4a16", {"images": 0, "kv_type": "fp8", "tensor_parallel": 1}),
        ("small-bf16-2gpu-offload", {"settings": {"gpu_memory_utilization": 0.9, "cpu_offload_gib": 3.5}}),
        ("magistral-bf16-2gpu", {}),
        ("magistral-2509-bf16-2gpu", {}),
    ],
)  # fmt: skip
def test_the_flags_of_profiles_are_accepted(profile: str, more: dict[str, object], found: Installation) -> None:
    check_flags(found, command(profile, found, **more).argv)


@pytest.mark.parametrize("profile", ["small-bf16-2gpu", "magistral-2509-bf16-2gpu"])
def test_older_versions_accept_them_as_spelt_for_them(profile: str, older: Installation) -> None:
    check_flags(older, command(profile, older).argv)


def test_older_versions_refuse_images_as_still_older_ones_took_them(older: Installation) -> None:
    with pytest.raises(MscliError, match="image=10") as refused:
        check_flags(older, command(found=older, options={"limit-mm-per-prompt": "image=10"}).argv)
    assert refused.value.details["cause"] == "cli_flags"


def test_what_was_accepted_is_not_asked_again(found: Installation) -> None:
    check_flags(found, command(found=found).argv)
    begun = time.monotonic()
    check_flags(found, command(found=found, options={"served-model-name": "another"}).argv)
    assert time.monotonic() - begun < 1, "the answer was not remembered"


@pytest.mark.parametrize(
    ("options", "said"),
    [({"enable-reasoning": True}, "--enable-reasoning"), ({"limit-mm-per-prompt": "image=10"}, "image=10")],
)
def test_a_flag_that_is_not_taken_is_named(options: dict[str, object], said: str, found: Installation) -> None:
    with pytest.raises(MscliError) as refused:
        check_flags(found, command(found=found, options=options).argv)
    assert (refused.value.code, refused.value.details["cause"]) == (Code.ENGINE_UNSUPPORTED, "cli_flags")
    assert said in refused.value.message
