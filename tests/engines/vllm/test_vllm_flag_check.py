"""`mscli up` asks vLLM's parser about the flags before weights are fetched, where that can save a download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.own_files import profile_text
from support.run_mscli import Mscli, Ran
from support.vllm.environments import environment

from mscli.engines.vllm.parser import TRIED

Machine = Callable[..., dict[str, str]]

# The environment's Python, which is asked to run vLLM's parser: it knows all flags but two.
PYTHON = """\
#!/bin/sh
echo asked >>'{asked}'
case "$*" in
*--enable-reasoning*)
    echo 'mscli: knows ["--enable-prefix-caching", "--reasoning-parser", "--no-enable-reasoning-x"]'
    echo 'usage: vllm serve [model_tag] [options]' >&2
    echo 'vllm: error: unrecognized arguments: --enable-reasoning' >&2
    exit 2;;
*--cuda-graph-sizes*) echo 'vllm: error: unrecognized arguments: --cuda-graph-sizes 8' >&2; exit 2;;
esac
echo 'mscli: accepted'
"""


@dataclass(frozen=True)
class User:
    """A user of one H100 whose vLLM is a stand-in. `asked`: a line for each time its parser was asked."""

    mscli: Mscli
    env: dict[str, str]
    profiles: Path
    asked: Path

    def up(self, *args: str, version: str = TRIED[-1]) -> Ran:
        """`mscli up` with this version of vLLM; no weights are here, and none can be fetched."""
        place = self.asked.parent / version
        if not place.exists():
            environment(place, f"vllm-{version}")
            (place / "bin" / "python3").write_text(PYTHON.format(asked=self.asked))
        return self.mscli("up", *args, "--no-heal", "--offline", "--json", env={**self.env, "MSCLI_VLLM": str(place)})

    def profile(self, options: str) -> Path:
        """A profile `mine` of the user's own."""
        self.profiles.mkdir(parents=True, exist_ok=True)
        mine = self.profiles / "mine.yaml"
        mine.write_text(profile_text("small-bf16").replace("options: {}", f"options: {options}"))
        return mine

    def times_asked(self) -> int:
        """How often the parser was asked."""
        return self.asked.read_text().count("asked") if self.asked.exists() else 0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """As everywhere but beside the real engine: a folder."""
    return tmp_path / "home"


@pytest.fixture
def user(mscli: Mscli, machine: Machine, home: Path, tmp_path: Path) -> User:
    """A user on one H100."""
    return User(mscli, machine("h100-80"), home / "config" / "profiles", tmp_path / "asked")


def test_a_wrong_flag_is_named_with_its_file_and_the_nearest_flag_before_a_byte_is_fetched(user: User) -> None:
    mine = user.profile("{enable-reasoning: true}")
    refused = user.up("mine")
    assert (refused.code, refused.error["code"]) == (1, "engine_unsupported")
    assert "does not know --enable-reasoning" in refused.error["message"]
    assert refused.error["details"]["cause"] == "cli_flags"
    assert refused.error["details"]["evidence"][0] == "vllm: error: unrecognized arguments: --enable-reasoning"
    assert f"`enable-reasoning` under `options` in {mine}" in refused.error["hint"]
    assert "--no-enable-reasoning-x" in refused.error["hint"]


def test_a_flag_that_has_another_name_now_is_told_by_it(user: User) -> None:
    mine = user.profile("{cuda-graph-sizes: 8}")
    hint = user.up("mine").error["hint"]
    assert f"Write `cudagraph-capture-sizes` in place of `cuda-graph-sizes` under `options` in {mine}" in hint


def test_a_good_flag_is_asked_for_once(user: User) -> None:
    user.profile("{enable-prefix-caching: true}")
    for _ in range(2):
        assert user.up("mine").error["code"] == "weights_missing"
    assert user.times_asked() == 1
    user.profile("{enable-prefix-caching: false}")
    user.up("mine")
    assert user.times_asked() == 2


def test_shipped_flags_of_a_version_that_was_tried_cost_no_time(user: User) -> None:
    assert user.up("small-bf16").error["code"] == "weights_missing"
    assert user.times_asked() == 0


def test_a_vllm_that_mscli_installed_is_run_once_before_weights_are_fetched(user: User, home: Path) -> None:
    """Its packages may be whole and not fit this machine: then nothing is fetched for it."""
    own = home / "data" / "engines" / "vllm"
    environment(own, f"vllm-{TRIED[-1]}")
    broken = PYTHON.format(asked=user.asked).replace(
        "case ", "echo 'ImportError: libcudart.so.13: cannot open shared object file: No such file' >&2; exit 1\ncase "
    )
    (own / "bin" / "python3").write_text(broken)
    refused = user.mscli("up", "small-bf16", "--no-heal", "--offline", "--json", env=user.env)
    assert (refused.code, refused.error["code"]) == (1, "engine_missing")
    assert "libcudart.so.13" in refused.out
    (own / "bin" / "python3").write_text(PYTHON.format(asked=user.asked))
    for _ in range(2):
        again = user.mscli("up", "small-bf16", "--no-heal", "--offline", "--json", env=user.env)
        assert again.error["code"] == "weights_missing"
    assert user.times_asked() == 2


def test_shipped_flags_of_another_version_are_asked_for(user: User) -> None:
    user.up("small-bf16", version="0.99.0")
    assert user.times_asked() == 1


def test_nothing_is_asked_where_no_weights_are_to_come(user: User, tmp_path: Path) -> None:
    user.profile("{enable-reasoning: true}")
    assert user.up("mine", "--weights", str(tmp_path)).error["code"] == "weights_missing"
    assert user.times_asked() == 0


def test_a_dry_run_asks_nobody(user: User) -> None:
    user.profile("{enable-reasoning: true}")
    assert user.up("mine", "--dry-run").error["code"] == "weights_missing"  # with --offline
    assert user.times_asked() == 0
