"""The command lines of all shipped profiles before the parsers of real vLLMs, and what the check of flags says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.engines.installed_engines import older_vllm
from support.vllm.command_lines import command
from support.vllm.parsers import Parser
from support.vllm.shipped import PROFILES, command_lines

from mscli.catalog.load import load_one
from mscli.engines.engine import Installation
from mscli.engines.vllm.installation import environment_python, installation
from mscli.engines.vllm.parser import TRIED, check_flags
from mscli.errors import Code, MscliError
from mscli.paths import shipped_profiles

pytestmark = pytest.mark.engines

IMAGES = "--limit-mm-per-prompt"
OLD, NEW = ["x/y", IMAGES, "image=10"], ["x/y", IMAGES, '{"image": 10}']


@dataclass(frozen=True)
class Answer:
    """What one version's parser says to the command lines of all profiles, and to two ways to allow images."""

    version: str
    lines: Mapping[str, list[str]]
    refused: Mapping[str, str]


@pytest.fixture(scope="module", params=TRIED)
def answer(request: pytest.FixtureRequest, vllm_place: Path) -> Answer:
    """One version's answer."""
    version = request.param
    seen = installation(vllm_place / "bin" / "vllm", "named")
    python = environment_python(seen)
    assert python is not None
    own = (seen.version or "").partition("+")[0] == version
    lines = command_lines(version)
    parser = Parser(version, python, None if own else older_vllm(version))
    return Answer(version, lines, parser.refuses({**lines, "old": OLD, "new": NEW}))


@pytest.mark.parametrize("profile", PROFILES)
def test_every_shipped_profile_is_accepted(profile: str, answer: Answer) -> None:
    mine = [name for name in answer.lines if name.startswith(f"{profile} on ")]
    assert mine, f"no machine of the tests takes {profile}"
    assert not {name: answer.refused[name] for name in mine if name in answer.refused}


def test_images_are_refused_as_other_versions_take_them(answer: Answer) -> None:
    old, new = "old" in answer.refused, "new" in answer.refused
    assert (old, new) == ((False, True) if answer.version == "0.8.1" else (True, False))


@pytest.fixture
def found(vllm_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """The vLLM under test, as if it had GPU code: the parser is the same."""
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path))
    seen = installation(vllm_place / "bin" / "vllm", "named")
    return replace(seen, version=(seen.version or "").partition("+")[0])


def test_what_was_accepted_is_not_asked_again(found: Installation) -> None:
    check_flags(found, command(found=found).argv)
    begun = time.monotonic()
    check_flags(found, command(found=found, options={"served-model-name": "another"}).argv)
    assert time.monotonic() - begun < 1, "the answer was not remembered"


@pytest.mark.parametrize(
    ("options", "said", "nearest"),
    [
        ({"max-model-length": 4096}, "--max-model-length", "--max-model-len."),
        ({"limit-mm-per-prompt": "image=10"}, "image=10", "under `options` in"),
    ],
)
def test_a_flag_that_is_not_taken_is_named(
    options: dict[str, object], said: str, nearest: str, found: Installation
) -> None:
    profile = replace(load_one("small-bf16", shipped_profiles(), None)[0], options=options)
    with pytest.raises(MscliError) as refused:
        check_flags(found, command(found=found, options=options).argv, profile)
    assert (refused.value.code, refused.value.details["cause"]) == (Code.ENGINE_UNSUPPORTED, "cli_flags")
    assert said in refused.value.message
    assert nearest in refused.value.hint
