"""Flags that were renamed, before the parsers of real vLLMs: what our table says of them is true of each version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.engines.installed_engines import older_vllm
from support.vllm.command_lines import command

from mscli.catalog.profile import OptionValue
from mscli.engines.engine import Installation
from mscli.engines.vllm.flags import RENAMED
from mscli.engines.vllm.installation import installation
from mscli.engines.vllm.parser import check_flags
from mscli.errors import MscliError
from mscli.lifecycle.healing.flag_renames import renamed

VALUES: dict[str, OptionValue] = {
    "cuda-graph-sizes": 8,
    "override-pooler-config": "{}",
    "disable-log-requests": True,
}
FLAGS = [flag.old for flag in RENAMED]


@pytest.fixture
def newest(vllm_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """The vLLM under test, as if it had GPU code: the parser is the same."""
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path))
    seen = installation(vllm_place / "bin" / "vllm", "named")
    return replace(seen, version=(seen.version or "").partition("+")[0])


def older(version: str, newest: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """An older vLLM's parser, which runs on the packages of the one under test."""
    monkeypatch.setenv("PYTHONPATH", str(older_vllm(version)))
    return replace(newest, version=version, beside={})


def ask(found: Installation, options: dict[str, OptionValue]) -> None:
    check_flags(found, command(found=found, options=options).argv)


@pytest.mark.engines
@pytest.mark.parametrize("old", FLAGS)
@pytest.mark.parametrize("version", ["0.22.1", "newest"])
def test_the_new_name_is_taken_where_the_old_one_is_refused(
    version: str, old: str, newest: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = newest if version == "newest" else older(version, newest, monkeypatch)
    with pytest.raises(MscliError, match=old) as refused:
        ask(found, {old: VALUES[old]})
    assert refused.value.details["cause"] == "cli_flags"
    new = renamed("vllm", found.version, [old])[old]
    ask(found, {new: VALUES[old]})


@pytest.mark.engines
@pytest.mark.parametrize("old", FLAGS)
def test_the_old_name_stays_where_it_is_taken(old: str, newest: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    found = older("0.10.2", newest, monkeypatch)
    assert renamed("vllm", found.version, [old]) == {}
    ask(found, {old: VALUES[old]})


def test_names_are_found_however_they_are_spelt_and_only_for_their_engine() -> None:
    options = ["disable_log_requests", "max-num-seqs"]
    assert renamed("vllm", "0.32.0+cpu", options) == {"disable_log_requests": "no-enable-log-requests"}
    assert renamed("vllm-docker", "v0.22.1", options) == {"disable_log_requests": "no-enable-log-requests"}
    assert renamed("vllm", "0.10.2", options) == {}
    assert renamed("vllm", None, options) == {}, "which version takes them is not known"
    assert renamed("ollama", "0.32.0", options) == {}
    assert renamed("llama.cpp", None, options) == {"disable_log_requests": "disable-log-requests"}
