"""Which environment is used for Transformers, and what is said when none can be."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.transformers.plans import environment, program

from mscli.engines.transformers.engine import SERVER, Transformers
from mscli.errors import Code, MscliError

WHOLE = {"transformers": "5.23.0", "torch": "2.13.0", "accelerate": "1.15.0"}


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("MSCLI_TRANSFORMERS", raising=False)


def own(tmp_path: Path) -> Path:
    return tmp_path / "home" / "data" / "engines" / "transformers"


def test_the_environment_that_is_named_is_used_before_all_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment(own(tmp_path), **WHOLE)
    named = environment(tmp_path / "mine", **{**WHOLE, "transformers": "5.20.1", "bitsandbytes": "0.50.2"})
    monkeypatch.setenv("MSCLI_TRANSFORMERS", str(named))
    found = Transformers().locate()

    assert (found.kind, found.version, found.argv) == ("named", "5.20.1", (str(named / "bin/python"), str(SERVER)))
    assert found.beside == {"torch": "2.13.0", "bitsandbytes": "0.50.2"}


def test_a_named_folder_that_is_no_environment_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSCLI_TRANSFORMERS", str(tmp_path))
    with pytest.raises(MscliError, match=r"MSCLI_TRANSFORMERS is .* no bin/python") as missing:
        Transformers().locate()

    assert missing.value.code is Code.ENGINE_MISSING


def test_what_a_named_environment_lacks_is_not_looked_for_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment(own(tmp_path), **WHOLE)
    monkeypatch.setenv("MSCLI_TRANSFORMERS", str(environment(tmp_path / "mine", transformers="5.23.0")))
    with pytest.raises(MscliError, match="torch and accelerate missing"):
        Transformers().locate()


def test_mscli_s_own_environment_comes_before_path(tmp_path: Path) -> None:
    other = environment(tmp_path / "other", **WHOLE)
    program(tmp_path / "bin" / "transformers", f"#!{other}/bin/python\n")
    environment(own(tmp_path), **{**WHOLE, "transformers": "5.22.0"})

    assert (Transformers().locate().kind, Transformers().locate().version) == ("own", "5.22.0")


def test_a_command_on_path_leads_to_its_environment(tmp_path: Path) -> None:
    other = environment(tmp_path / "other", **WHOLE)
    program(tmp_path / "bin" / "transformers", f"#!{other}/bin/python\n")
    found = Transformers().locate()

    assert (found.kind, found.argv[0]) == ("program", f"{other}/bin/python")


def test_without_any_the_way_to_one_is_told() -> None:
    with pytest.raises(MscliError, match="Transformers was not found") as missing:
        Transformers().locate()

    assert missing.value.code is Code.ENGINE_MISSING
    assert "mscli engines install transformers" in missing.value.hint
    assert "MSCLI_TRANSFORMERS" in missing.value.hint
