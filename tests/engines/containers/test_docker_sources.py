"""The `docker run` lines of the source documents, as profiles: what they ask for is in the command of the plan."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from support.run_mscli import Mscli

from mscli.catalog.load import load_one
from mscli.catalog.profile import on_engine
from mscli.lifecycle.decision import plan_one
from mscli.lifecycle.preview import preview, somewhere
from mscli.lifecycle.snapshot import elsewhere, imagine
from mscli.paths import places, shipped_profiles
from mscli.planning.plan import Overrides, Plan

GUIDE = """
  --model mistralai/Mistral-Small-3.1-24B-Instruct-2503
  --tokenizer-mode mistral --config-format mistral --load-format mistral
  --tool-call-parser mistral --enable-auto-tool-choice
"""
CARD = """
  --model mistralai/Magistral-Small-2506
  --tokenizer-mode mistral --config-format mistral --load-format mistral
  --tool-call-parser mistral --enable-auto-tool-choice
"""
TWO = Overrides(gpus=("0", "1"))
# profile, machine, the documents' flags behind the image, what is typed
LINES = [
    ("small-bf16", "H100", f"{GUIDE} --max-model-len 32768", Overrides(context=32768, images=0)),
    ("small-bf16", "2x RTX 5090", f"{GUIDE} --limit-mm-per-prompt 'image=10' --tensor-parallel-size 2", TWO),
    ("small-bf16", "2x RTX A6000", f"{GUIDE} --limit-mm-per-prompt 'image=10' --tensor-parallel-size 2", TWO),
    ("magistral-bf16", "H100", CARD, Overrides()),
    ("magistral-bf16", "2x RTX A6000", f"{CARD} --tensor-parallel-size 2", TWO),
]
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "containers.md"
NAMED = sorted(set(re.findall(r"mscli (?:up|plan) ([\w-]+) --container", PAGE.read_text())))


@pytest.mark.parametrize(("profile", "on", "line", "typed"), LINES)
def test_a_documented_line_is_in_the_planned_command(
    profile: str, on: str, line: str, typed: Overrides, tmp_path: Path
) -> None:
    known, model = load_one(profile, shipped_profiles(), None)
    known = on_engine(known, "vllm-docker")
    planned = plan_one(known, model, imagine(elsewhere(on)), typed)
    assert isinstance(planned, Plan), planned
    made = preview(planned, known, model, somewhere(known, model, places({"MSCLI_HOME": str(tmp_path)}))).command
    assert made is not None
    found = made.argv
    behind = found[found.index("--entrypoint") :]
    for flag, value in asked(line).items():
        if flag == "--model":
            assert behind[behind.index("serve") + 1] == value
        elif flag == "--limit-mm-per-prompt":
            assert json.loads(behind[behind.index(flag) + 1]) == {"image": 10}
        elif value is None:
            assert flag in behind
        else:
            assert behind[behind.index(flag) + 1] == value


def asked(line: str) -> dict[str, str | None]:
    """The flags of a documented line with their values."""
    words, flags = shlex.split(line), dict[str, str | None]()
    for at, word in enumerate(words):
        if word.startswith("--"):
            after = words[at + 1] if at + 1 < len(words) else "--"
            flags[word] = None if after.startswith("--") else after
    return flags


def test_two_cards_of_24_gb_are_refused_with_the_shortage(mscli: Mscli) -> None:
    ran = mscli("plan", "small-bf16", "--container", "--on", "2x RTX 4090", "--json")
    assert ran.code == 4
    assert "short" in " ".join(ran.data["profiles"][0]["reasons"])


@pytest.mark.parametrize("name", NAMED)
def test_a_profile_that_the_page_names_is_there_with_a_pinned_image(name: str) -> None:
    image = load_one(name, shipped_profiles(), None)[0].image
    assert image is not None
    assert re.search(r":v\d+\.\d+\.\d+(?:@sha256:[0-9a-f]{64})?$", image)
