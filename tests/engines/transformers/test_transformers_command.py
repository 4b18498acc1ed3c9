"""What is executed for a plan, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.transformers.plans import ON_CPU, ON_ONE_GPU, ON_TWO_GPUS, WEIGHTS, after, serving, shipped

from mscli.catalog.profile import OptionValue
from mscli.engines.engine import Command, Installation
from mscli.engines.templates import chat_template
from mscli.engines.transformers.engine import SERVER, Transformers
from mscli.errors import MscliError
from mscli.planning.plan import Plan

ENGINE = Transformers()
FOUND = Installation(
    "transformers",
    ("/env/bin/python", "/server.py"),
    "5.23.0",
    "own",
    Path("/env/bin/python"),
    {"torch": "2.13.0", "bitsandbytes": "0.50.2", "torchvision": "0.28.0"},
)
FOUR_BITS: Mapping[str, OptionValue] = {"quantization": "bnb-4bit"}


def command(plan: Plan, folder: Path, found: Installation = FOUND, key: Path | None = None) -> Command:
    profile, model = shipped("small-4bit")
    return ENGINE.command(plan, profile, model, WEIGHTS, serving(folder, key), found)


def without(package: str) -> Installation:
    return replace(FOUND, beside={name: version for name, version in FOUND.beside.items() if name != package})


def test_the_server_is_run_by_the_engine_s_own_python(tmp_path: Path) -> None:
    argv = command(replace(ON_CPU, settings=FOUR_BITS), tmp_path).argv

    assert argv[:2] == ("/env/bin/python", "/server.py")
    assert [after(argv, flag) for flag in ("--model", "--alias", "--context", "--quantization")] == [
        "/models/small31",
        "mistral-small-3.1",
        "8192",
        "bnb-4bit",
    ]


def test_the_models_sampling_is_the_servers_default(tmp_path: Path) -> None:
    assert after(command(ON_CPU, tmp_path).argv, "--temperature") == "0.15"


@pytest.mark.parametrize(
    ("plan", "device", "visible"),
    [
        pytest.param(ON_CPU, "cpu", "", id="no GPU"),
        pytest.param(ON_ONE_GPU, "cuda:0", "GPU-a", id="one GPU, all of it"),
        pytest.param(ON_TWO_GPUS, "auto", "GPU-a,GPU-b", id="device map over two"),
        pytest.param(replace(ON_ONE_GPU, settings={"host_layers": 8}), "auto", "GPU-a", id="part in host memory"),
    ],
)
def test_the_device_follows_the_plan(plan: Plan, device: str, visible: str, tmp_path: Path) -> None:
    made = command(plan, tmp_path)

    assert after(made.argv, "--device") == device
    assert made.env["CUDA_VISIBLE_DEVICES"] == visible


@pytest.mark.parametrize(("layers", "allowed"), [(0, False), (8, True)])
def test_host_memory_is_used_only_where_it_was_planned(layers: int, allowed: bool, tmp_path: Path) -> None:
    plan = replace(ON_ONE_GPU, settings={**FOUR_BITS, **({"host_layers": layers} if layers else {})})

    assert ("--offload" in command(plan, tmp_path).argv) is allowed


def test_the_chat_template_is_written_beside_the_log(tmp_path: Path) -> None:
    made = command(ON_CPU, tmp_path)

    assert made.files == {Path(after(made.argv, "--chat-template")): chat_template("v7")}


def test_nothing_is_asked_of_the_hub(tmp_path: Path) -> None:
    assert command(ON_CPU, tmp_path).env["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("found", "plan", "seen", "hint"),
    [
        pytest.param(replace(FOUND, version="4.49.0"), ON_CPU, "4.49.0 is too old", "transformers>=4.56", id="too old"),
        pytest.param(
            without("bitsandbytes"), replace(ON_CPU, settings=FOUR_BITS), "no bitsandbytes", "pip install", id="no bnb"
        ),
        pytest.param(
            without("torchvision"),
            replace(ON_CPU, images=1),
            "no torchvision",
            "pip install torchvision",
            id="no images",
        ),
        pytest.param(
            replace(FOUND, beside={**FOUND.beside, "torch": "2.13.0+cpu"}),
            ON_ONE_GPU,
            "built for CPUs only",
            "--index-url",
            id="torch without CUDA",
        ),
    ],
)
def test_what_the_environment_lacks_is_told_with_the_command_that_adds_it(
    found: Installation, plan: Plan, seen: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(MscliError, match=seen) as refused:
        command(plan, tmp_path, found)

    assert hint in refused.value.hint


def test_an_engine_that_is_not_here_yet_is_shown_as_it_would_be_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path))
    absent = Installation("transformers", ("transformers",), None, "absent", Path("transformers"))
    own = tmp_path / "data" / "engines" / "transformers" / "bin" / "python"

    assert command(replace(ON_CPU, settings=FOUR_BITS), tmp_path, absent).argv[:2] == (str(own), str(SERVER))


def test_weights_are_observed_by_device() -> None:
    log = 'placed weights: {"cuda:0": 3000, "cpu": 1000}\nready: twin on http://127.0.0.1:1/v1, context=8192\n'
    observed = ENGINE.observe(log)

    assert (observed.weights_bytes, observed.gpu_share, observed.context) == (4000, 0.75, 8192)
