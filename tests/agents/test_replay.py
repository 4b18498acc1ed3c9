"""What agents sent, sent again: every request with tools gets a call, and none is refused."""

from __future__ import annotations

from support.agents.replay import expected, replayed
from support.agents.requests import REPLAYED
from support.run_mscli import Mscli


def test_on_llama_cpp_every_request_of_an_agent_is_answered_and_those_with_tools_by_a_call(mscli: Mscli) -> None:
    mscli("up", "rehearsal", "--ctx", "16384")
    told = mscli("env", "--json").data
    found = replayed(told["MSCLI_ROOT_URL"], told["MSCLI_MODEL"])
    assert found == {each.agent: expected(each) for each in REPLAYED}
