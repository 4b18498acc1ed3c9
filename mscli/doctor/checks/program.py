"""Programs that a check runs to see for itself: found on PATH, without input, with a deadline."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from mscli.doctor.checks.context import CheckContext


@dataclass(frozen=True)
class Ran:
    """How a program ended. `status` None: it had not ended at the deadline and was killed."""

    status: int | None
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line that it wrote, of its errors first."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1].strip() if lines else ""


def which(ctx: CheckContext, name: str) -> str | None:
    """The path of a program as this user would run it; None where there is none."""
    return shutil.which(name, path=ctx.env.get("PATH"))


def run(ctx: CheckContext, *argv: str, timeout_s: float = 2.0, env: Mapping[str, str] | None = None) -> Ran | None:
    """Run a program and wait at most `timeout_s` for its end; None where it is not there or cannot be executed.

    `env` is added to the ctx's. What it writes is read as text, whatever it is.
    """
    program = which(ctx, argv[0])
    if program is None:
        return None
    try:
        process = subprocess.Popen(
            [program, *argv[1:]], env={**ctx.env, **(env or {})}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError:
        return None
    return _end(process, timeout_s)


def _end(process: subprocess.Popen[bytes], timeout_s: float) -> Ran:
    """Its end, or what it had written by then. One that hangs in the kernel does not even die of SIGKILL, as programs
    do that wait for a GPU which has fallen off the bus: it is not waited for.
    """
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as late:
        process.kill()
        return Ran(None, _text(late.stdout), _text(late.stderr))
    return Ran(process.returncode, _text(out), _text(err))


def _text(raw: str | bytes | None) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw or ""
