"""`mscli doctor` in the test's own process: a tenth of the time that a process of its own takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from mscli.cli.main import main
from support.run_mscli import Ran

Doctor = Callable[..., Ran]


def doctor_of(env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """A function: the arguments after `mscli doctor` -> what it printed, for a user with this environment."""
    for name in env:
        monkeypatch.setenv(name, env[name])

    def run(*args: str) -> Ran:
        capsys.readouterr()
        code = main(["doctor", *args])
        return Ran(code, *capsys.readouterr())

    return run
