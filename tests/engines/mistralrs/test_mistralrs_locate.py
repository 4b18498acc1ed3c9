"""Which mistral.rs is used: its program, the older one, or the wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from mscli.engines.engine import Installation
from mscli.engines.mistralrs.engine import MistralRs
from mscli.engines.mistralrs.installation import SERVER
from mscli.errors import Code, MscliError


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv("MSCLI_MISTRALRS", raising=False)


def program(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def wheel(folder: Path, distribution: str, version: str) -> Path:
    """A Python environment as far as files tell."""
    program(folder / "bin" / "python", "exit 1")
    (folder / "lib" / "python3.11" / "site-packages" / f"{distribution}-{version}.dist-info").mkdir(parents=True)
    return folder


def located() -> Installation:
    return MistralRs().locate()


def test_the_current_program_serves_by_a_subcommand(tmp_path: Path) -> None:
    path = program(tmp_path / "bin" / "mistralrs", "echo mistralrs 0.8.1")

    assert located() == Installation("mistral.rs", (str(path), "serve"), "0.8.1", "program", path, cpu=True)


def test_the_older_program_is_the_server_itself(tmp_path: Path) -> None:
    path = program(tmp_path / "bin" / "mistralrs-server", "echo mistralrs-server 0.5.0")

    assert located() == Installation("mistral.rs", (str(path),), "0.5.0", "older program", path, cpu=True)


def test_the_answer_tells_the_kind_whatever_the_file_is_called(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "mistralrs", "echo mistralrs-server 0.6.0")

    assert (located().kind, located().version) == ("older program", "0.6.0")


def test_the_current_program_comes_before_the_older(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "mistralrs", "echo mistralrs 0.9.2")
    program(tmp_path / "bin" / "mistralrs-server", "echo mistralrs-server 0.8.4")

    assert located().version == "0.9.2"


def test_a_program_comes_before_the_wheel(tmp_path: Path) -> None:
    wheel(tmp_path / "home" / "data" / "engines" / "mistralrs", "mistralrs", "0.9.5")
    program(tmp_path / "bin" / "mistralrs", "echo mistralrs 0.9.2")

    assert located().kind == "program"


def test_a_program_that_does_not_run_is_told_and_not_passed_over(tmp_path: Path) -> None:
    wheel(tmp_path / "home" / "data" / "engines" / "mistralrs", "mistralrs", "0.9.5")
    program(tmp_path / "bin" / "mistralrs", "echo libcudart.so.12: cannot open shared object file >&2; exit 127")
    with pytest.raises(MscliError, match=r"exit status 127: libcudart\.so\.12") as missing:
        located()

    assert missing.value.code is Code.ENGINE_MISSING


def test_the_wheel_in_mscli_s_own_environment(tmp_path: Path) -> None:
    own = wheel(tmp_path / "home" / "data" / "engines" / "mistralrs", "mistralrs", "0.9.5")
    found = located()

    assert (found.kind, found.version, found.argv) == ("wheel", "0.9.5", (str(own / "bin/python"), str(SERVER)))


@pytest.mark.parametrize("distribution", ["mistralrs", "mistralrs_cuda"])
def test_the_wheel_in_an_environment_that_is_named(
    distribution: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(tmp_path / "bin" / "mistralrs", "echo mistralrs 0.9.2")
    monkeypatch.setenv("MSCLI_MISTRALRS", str(wheel(tmp_path / "mine", distribution, "0.9.6")))

    assert (located().kind, located().version) == ("wheel", "0.9.6")


def test_a_program_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = program(tmp_path / "elsewhere" / "mistralrs", "echo mistralrs 0.7.0")
    monkeypatch.setenv("MSCLI_MISTRALRS", str(path))

    assert located().argv == (str(path), "serve")


def test_a_named_folder_without_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSCLI_MISTRALRS", str(tmp_path))
    with pytest.raises(MscliError, match=r"MSCLI_MISTRALRS is .*no wheel") as missing:
        located()

    assert missing.value.code is Code.ENGINE_MISSING


def test_without_any_the_way_to_one_is_told() -> None:
    with pytest.raises(MscliError, match=r"mistral\.rs was not found") as missing:
        located()

    assert "mscli engines install mistral.rs" in missing.value.hint
