"""`mscli engines`: every engine of the catalogue with what it can do, and what cannot be installed."""

from __future__ import annotations

from run_mscli import Mscli

from mscli.catalog.profile import ENGINES
from mscli.engines.table import STARTABLE


def test_every_engine_is_listed_with_what_it_can_do(mscli: Mscli) -> None:
    listed = {engine["name"]: engine for engine in mscli("engines", "--json").data["engines"]}
    assert set(listed) == set(ENGINES)
    for name in STARTABLE:
        able = listed[name]["capabilities"]
        assert able is not None, f"nothing is said of what {name} can do"
        assert able["kv_types"], f"no KV cache type is named for {name}"
        flags = {"vision", "tools", "reasoning", "multi_gpu", "api_key", "cpu"}
        assert {flag for flag in flags if isinstance(able[flag], bool)} == flags
        assert listed[name]["where"] or listed[name]["note"], f"{name} is neither here, nor is it said how to get it"


def test_an_engine_that_mscli_cannot_install_is_wrong_use(mscli: Mscli) -> None:
    ran = mscli("engines", "install", "nothing", "--json")
    assert (ran.code, ran.error["code"]) == (2, "usage")
    assert "nothing" in ran.error["message"]
    assert "llama.cpp" in ran.error["message"], "what can be installed is not said"
