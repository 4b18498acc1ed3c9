"""What agents sent, sent again: every request with tools gets a call, and none is refused."""

from __future__ import annotations

import pytest
from support.agents.replay import expected, replayed
from support.agents.requests import REPLAYED
from support.run_mscli import Mscli


@pytest.mark.parametrize("front", [(), ("--gateway",)], ids=["plain", "gateway"])
def test_on_llama_cpp_every_request_of_an_agent_is_answered_and_those_with_tools_by_a_call(
    mscli: Mscli, front: tuple[str, ...]
) -> None:
    mscli("up", "rehearsal", "--ctx", "16384", *front)
    told = mscli("env", "--json").data
    found = replayed(told["MSCLI_ROOT_URL"], told["MSCLI_MODEL"])
    assert found == {each.agent: expected(each) for each in REPLAYED}
