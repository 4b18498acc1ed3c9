"""What agents sent, sent again: every request with tools gets a call, and none is refused."""

from __future__ import annotations

import pytest
from support.agents.page import requests
from support.agents.replay import due, replayed, told
from support.run_mscli import Mscli


@pytest.mark.parametrize(
    ("front", "title"), [((), "llama.cpp"), (("--gateway",), "llama.cpp, gateway")], ids=["plain", "gateway"]
)
def test_on_llama_cpp_every_request_of_an_agent_is_answered_and_those_with_tools_by_a_call(
    mscli: Mscli, front: tuple[str, ...], title: str
) -> None:
    mscli("up", "rehearsal", "--ctx", "16384", *front)
    env = mscli("env", "--json").data
    found = replayed(env["MSCLI_ROOT_URL"], env["MSCLI_MODEL"])
    assert found == due()
    assert told(found) == requests(title)
