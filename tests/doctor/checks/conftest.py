"""mscli doctor as a user runs it, on a home of the test's own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.doctor.visits import Doctor, Visit
from support.hub import Hub
from support.run_mscli import Mscli
from support.weights.hub_profile import GGUF, PROJECTOR, own_profile, published

import mscli as package
from mscli.cli.main import main


@pytest.fixture
def doctor(mscli: Mscli) -> Doctor:
    """A visit of the doctor: areas or profile as on the command line."""

    def visit(*args: str, env: Mapping[str, str] | None = None) -> Visit:
        ran = mscli("doctor", *args, "--json", env=env)
        return Visit(ran.code, ran.data["findings"], ran.out, ran.data["seconds"])

    return visit


@pytest.fixture
def here(user_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """The same visit without a process of its own, which takes a tenth of the time: for what depends on no library that
    reads its environment once, and on no described machine."""

    def visit(*args: str, env: Mapping[str, str] | None = None) -> Visit:
        wanted = {**user_env, **(env or {})}
        for name in set(os.environ) - set(wanted):
            if not name.startswith("PYTEST"):
                monkeypatch.delenv(name)
        for name, value in wanted.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = main(["doctor", *args, "--json"])
        text = capsys.readouterr().out
        data = json.loads(text)["data"]
        return Visit(code, data["findings"], text, data["seconds"])

    return visit


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub that publishes the rehearsal's two files."""
    with published(tmp_path / "cas") as hub:
        yield hub


@pytest.fixture
def tiny(home: Path) -> str:
    """A user's own profile whose weights come from that repository; its name."""
    own_profile(home)
    return "tiny"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """The tiny repository in the cache as another tool would have left it: no list of the hub's, whole files."""
    commit = "c" * 40
    repository = tmp_path / "hub" / "models--makers--tiny"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    source = Path(package.__file__).parent / "rehearsal"
    for name in (GGUF, PROJECTOR):
        shutil.copy(source / name, folder / name)
    return folder
