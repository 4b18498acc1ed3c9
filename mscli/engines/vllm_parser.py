"""What vLLM's own parser says to a command line, before any weight is fetched or loaded."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mscli.engines.engine import Installation
from mscli.engines.vllm_installation import environment_python
from mscli.errors import Code, MscliError
from mscli.paths import places

# Importing vLLM's parser takes about 10 s, and a minute where nothing is in the disk cache yet.
TIMEOUT_S = 180.0
ACCEPTED = "mscli: accepted"
# vLLM's own command with a server that only says that it was reached: the parser and its checks of values stay.
_CHILD = f"""
import sys
from vllm.entrypoints.cli import main, serve
serve.ServeSubcommand.cmd = staticmethod(lambda args: print({ACCEPTED!r}))
sys.argv = ["vllm", *sys.argv[1:]]
main.main()
"""
# Flags whose value is text to the parser: no other value of them need be asked for again.
_FREE = ("--host", "--port", "--served-model-name", "--model")


def check_flags(found: Installation, argv: Sequence[str]) -> None:
    """Ask the installed vLLM's parser whether it takes a whole command line, as `Vllm.command` makes it.

    Waits about 10 s the first time; what was accepted once is remembered by version and flags. Raises
    ENGINE_UNSUPPORTED with the parser's words (details["cause"]: cli_flags), and ENGINE_MISSING where this vLLM does
    not run at all.
    """
    words = ["serve", *_after_start(found, argv)]
    noted = _notes(found, words)
    if noted.exists():
        return
    python = environment_python(found)
    if python is None:
        raise MscliError(Code.ENGINE_MISSING, f"{found.path} does not tell which Python runs it", "Install vLLM anew.")
    said = _ask(python, words)
    if ACCEPTED not in said.stdout:
        raise _refused(found, said.stderr or said.stdout)
    noted.parent.mkdir(parents=True, exist_ok=True)
    noted.touch()


def _after_start(found: Installation, argv: Sequence[str]) -> list[str]:
    """The command line after `vllm serve`: the model, then the flags."""
    words = list(argv[len(found.argv) :])
    return words[1:] if words[:1] == ["--model"] else words


def _ask(python: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    try:
        return subprocess.run(
            [str(python), "-c", _CHILD, *words],
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MscliError(Code.ENGINE_MISSING, f"vLLM was not imported within {TIMEOUT_S:.0f} s", "Try again.") from None
    except OSError as fault:
        raise MscliError(Code.ENGINE_MISSING, f"{python} does not run: {fault}", "Install vLLM anew.") from fault


def _refused(found: Installation, said: str) -> MscliError:
    from mscli.engines.vllm_causes import cause

    why = cause(said, 2)
    code = Code.ENGINE_UNSUPPORTED if why.code == "cli_flags" else Code.ENGINE_MISSING
    details = {"cause": why.code, "evidence": list(why.evidence)}
    return MscliError(code, f"{found.path} (vLLM {found.version}): {why.summary}", why.remedy, details)


def _notes(found: Installation, words: Sequence[str]) -> Path:
    """The file whose presence says that these flags were accepted."""
    fixed, skipping = [], True  # the first word after `serve` is the model
    for word in words[1:]:
        if word.startswith("--"):
            skipping = word in _FREE
        if not skipping:
            fixed.append(word)
    text = json.dumps([found.version, str(found.path), fixed])
    return places().state / "vllm-flags" / hashlib.sha256(text.encode()).hexdigest()[:32]
