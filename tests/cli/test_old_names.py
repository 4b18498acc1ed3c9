"""Old names of profiles, the options that took their place, and instances that were started under them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.containers.container_home import StandinDocker
from support.run_mscli import Mscli

Machine = Callable[..., dict[str, str]]
SAYS = "small-bf16-2gpu is an old name; type now: mscli up small-bf16 --gpus 0,1"


@pytest.mark.parametrize(
    "words",
    [("up", "small-bf16-2gpu", "--dry-run"), ("plan", "small-bf16-2gpu"), ("profiles", "show", "small-bf16-2gpu")],
)
def test_an_old_name_does_what_it_did_and_says_in_one_line_what_to_type(
    words: tuple[str, ...], mscli: Mscli, machine: Machine
) -> None:
    ran = mscli(*words, env=machine("rtx5090-x2"))
    assert ran.code == 0
    assert ran.err.count(SAYS) == 1
    assert SAYS not in ran.out


def test_what_is_to_be_typed_plans_the_same(mscli: Mscli, machine: Machine) -> None:
    env = machine("rtx5090-x2")
    old, new = (
        mscli("up", *words, "--dry-run", "--json", env=env).data["plan"]
        for words in (("small-bf16-2gpu",), ("small-bf16", "--gpus", "0,1"))
    )
    same = ("engine", "variant", "context", "kv_type", "gpus", "images", "verdict", "memory")
    assert {key: old[key] for key in same} == {key: new[key] for key in same}


def test_a_new_name_says_nothing(mscli: Mscli, machine: Machine) -> None:
    assert "old name" not in mscli("up", "small-bf16", "--dry-run", env=machine("rtx5090-x2")).err


def test_old_names_are_not_listed(mscli: Mscli, machine: Machine) -> None:
    listed = mscli("profiles", "--json", env=machine("rtx5090-x2")).data["profiles"]
    assert "small-bf16-2gpu" not in {row["name"] for row in listed}


def test_a_container_is_an_option(mscli: Mscli, machine: Machine, tmp_path: Path) -> None:
    docker = StandinDocker(tmp_path / "docker", tmp_path / "bin")
    docker.flag("nvidia")
    env = {**machine("rtx5090-x2"), **docker.env}
    for option in (("--container",), ("--engine", "vllm-docker")):
        plan = mscli("up", "small-bf16", *option, "--dry-run", "--json", env=env).data["plan"]
        assert (plan["profile"], plan["engine"]) == ("small-bf16", "vllm-docker")
    best = mscli("plan", "--container", "--json", env=env).data
    assert {row["engine"] for row in best["profiles"]} == {"vllm-docker"}


def test_an_engine_without_a_container_is_refused(mscli: Mscli, machine: Machine) -> None:
    env = machine("rtx4090")
    both = mscli("up", "small-q4", "--engine", "ollama", "--container", "--json", env=env)
    assert (both.code, both.error["code"]) == (2, "usage")
    named = mscli("up", "small-q4", "--container", "--dry-run", "--json", env=env)
    assert (named.code, named.error["code"]) == (4, "no_fit")
    assert "small-q4 runs on ollama, not on vllm-docker" in named.error["message"]
