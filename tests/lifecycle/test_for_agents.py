"""For coding agents the gateway stands in front of an engine that refuses what they send."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.run_mscli import Mscli

Machine = Callable[..., dict[str, str]]
FRONTED = "mscli's gateway listens on 127.0.0.1:"


@pytest.mark.usefixtures("gpu_llama")
@pytest.mark.parametrize(
    ("profile", "flags", "fronted"),
    [
        ("small-fp8", ("--for", "agents"), True),
        ("small-fp8", ("--for", "agents", "--plain"), False),
        ("small-fp8", ("--gateway",), True),
        ("small-fp8", (), False),
        ("small-gguf-q4", ("--for", "agents"), False),
    ],
)
def test_vllm_gets_one_for_agents_unless_it_is_to_be_plain(
    mscli: Mscli, machine: Machine, profile: str, flags: tuple[str, ...], fronted: bool
) -> None:
    up = mscli("up", profile, *flags, "--dry-run", "--json", env=machine("h100-80"))

    assert up.code == 0, up.err
    assert any(note.startswith(FRONTED) for note in up.data["notes"]) is fronted
