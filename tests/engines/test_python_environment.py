"""An environment for an engine, made and read."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.transformers.plans import environment, program

from mscli.engines.engine import Installation
from mscli.engines.installed import environment_in, environment_of, make_environment
from mscli.engines.mistralrs import installation as mistralrs_installation
from mscli.engines.transformers import installation as transformers
from mscli.errors import Code, MscliError
from mscli.weights.progress import Note, Silence


class Heard(Silence):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[Note] = []

    def note(self, note: Note) -> None:
        self.notes.append(note)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel without content."""
    path = tmp_path / "tiny_engine-1.2.3-py3-none-any.whl"
    info = "tiny_engine-1.2.3.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-engine\nVersion: 1.2.3\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_it_is_made_filled_and_read(wheel: Path, tmp_path: Path) -> None:
    listener = Heard()
    made = make_environment(tmp_path / "engines" / "tiny", (str(wheel),), listener)

    assert made.version("tiny-engine") == "1.2.3"
    assert environment_in(tmp_path / "engines" / "tiny") == made
    assert "tiny.log" in listener.notes[0].message


def test_an_installer_that_fails_is_quoted(tmp_path: Path) -> None:
    environment(tmp_path / "tiny")
    program(tmp_path / "tiny" / "bin" / "python", "#!/bin/sh\necho 'ERROR: No matching distribution' >&2\nexit 1\n")
    with pytest.raises(MscliError, match="status 1: ERROR: No matching distribution") as failed:
        make_environment(tmp_path / "tiny", ("tiny-engine",), Silence())

    assert failed.value.code is Code.DOWNLOAD_FAILED
    assert str(tmp_path / "tiny.log") in failed.value.hint


@pytest.mark.parametrize(
    "said",
    [
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
        "  Caused by: failed to write to file `torch.so`: No space left on device (os error 28)",
        "OSError: [Errno 122] Disk quota exceeded",
    ],
)
def test_a_disk_that_fills_meanwhile_is_named(said: str, tmp_path: Path) -> None:
    environment(tmp_path / "tiny")
    program(tmp_path / "tiny" / "bin" / "python", f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    with pytest.raises(MscliError) as failed:
        make_environment(tmp_path / "tiny", ("tiny-engine",), Silence())

    assert (failed.value.code, failed.value.details["cause"]) == (Code.DISK_FULL, "disk_full")
    assert "MSCLI_HOME" in failed.value.hint
    assert environment_in(tmp_path / "tiny") is None


@pytest.mark.parametrize(
    ("install", "name", "version", "wanted"),
    [
        pytest.param(transformers.install, "transformers", None, "transformers>=5,<6", id="Transformers"),
        pytest.param(transformers.install, "transformers", "5.23.0", "transformers==5.23.0", id="a version of it"),
        pytest.param(mistralrs_installation.install, "mistralrs", None, "mistralrs>=0.9.5", id="mistral.rs"),
        pytest.param(mistralrs_installation.install, "mistralrs", "0.9.6", "mistralrs==0.9.6", id="a version of it "),
    ],
)
def test_engines_are_installed_into_mscli_s_own_environments(
    install: Callable[..., Installation],
    name: str,
    version: str | None,
    wanted: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # without uv
    own = environment(tmp_path / "data" / "engines" / name, **{name: version or "9.9"})
    program(own / "bin" / "python", '#!/bin/sh\necho "$@"\n')
    found = install(Silence(), version=version)

    assert found.version == (version or "9.9")
    assert f"-m pip install {wanted}" in own.with_name(f"{name}.log").read_text()


def test_names_are_compared_as_package_indexes_do(tmp_path: Path) -> None:
    environment(tmp_path / "tiny", tiny_engine="1.0")
    found = environment_in(tmp_path / "tiny")

    assert found is not None
    assert (found.version("tiny.engine"), found.version("tiny"), found.version("engine")) == ("1.0", None, None)


def test_a_folder_without_an_interpreter_is_no_environment(tmp_path: Path) -> None:
    assert environment_in(tmp_path) is None


@pytest.mark.parametrize("text", ["#!/bin/sh\n", "\x7fELF", ""])
def test_a_command_that_is_no_python_script_belongs_to_no_environment(text: str, tmp_path: Path) -> None:
    assert environment_of(program(tmp_path / "bin" / "transformers", text)) is None
