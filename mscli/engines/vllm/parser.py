"""What vLLM's own parser says to a command line, before any weight is fetched or loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from mscli.catalog.profile import Profile
from mscli.engines.engine import Cause, Installation
from mscli.engines.renamed_flags import renamed
from mscli.engines.vllm.installation import environment_python
from mscli.errors import Code, MscliError
from mscli.paths import places

# Importing vLLM's parser takes about 10 s, and a minute where nothing is in the disk cache yet.
TIMEOUT_S = 180.0
# Versions whose own parsers took the command lines of all shipped profiles, on every kind of machine in the tests.
TRIED = ("0.8.1", "0.10.2", "0.22.1", "0.32.0", "0.33.0")
ACCEPTED = "mscli: accepted"
_KNOWS = "mscli: knows "
# vLLM's own command with a server that only says that it was reached: the parser and its checks of values stay. What
# it refuses it names without saying what it would take instead, so the parser's flags are told as well.
_CHILD = f"""
import argparse, gc, json, sys
from vllm.entrypoints.cli import main, serve
serve.ServeSubcommand.cmd = staticmethod(lambda args: print({ACCEPTED!r}))
sys.argv = ["vllm", *sys.argv[1:]]
try:
    main.main()
except SystemExit as ended:
    if ended.code:
        parsers = [it for it in gc.get_objects() if issubclass(type(it), argparse.ArgumentParser)]
        flags = {{word for it in parsers if it.prog == "vllm serve" for word in it._option_string_actions}}
        print({_KNOWS!r} + json.dumps(sorted(flags)))
    raise
"""
# Flags whose value is text to the parser: no other value of them need be asked for again.
_FREE = ("--host", "--port", "--served-model-name", "--model")
_BLAMED = re.compile(r"(?:unrecognized arguments:|error: argument|ambiguous option:) (--[\w.-]+)")
# Causes of the command line itself; all others mean that this vLLM does not run at all.
_OF_FLAGS = ("cli_flags", "tools")


def worth_asking(found: Installation, argv: Sequence[str], profile: Profile) -> bool:
    """Whether asking can save a download: weights are missing (the model is named, not given by its path), this vLLM
    might refuse (its version was not tried, or the profile adds flags of its own), and it was not asked before."""
    words = _words(found, argv)
    tried = (found.version or "").partition("+")[0] in TRIED
    doubtful = bool(profile.options) or not tried
    return doubtful and not Path(words[1]).is_absolute() and not _notes(found, words).exists()


def check_flags(found: Installation, argv: Sequence[str], profile: Profile | None = None) -> None:
    """Ask the installed vLLM's parser whether it takes a whole command line, as `Vllm.command` makes it.

    Waits about 10 s the first time, at most TIMEOUT_S: a disk that is slower than that says nothing of the flags, and
    the start will show. What was accepted once is remembered by version and flags. Raises ENGINE_UNSUPPORTED with the
    parser's words (details["cause"]: cli_flags or tools), naming the option of `profile` that is to be changed, and
    ENGINE_MISSING where this vLLM does not run at all.
    """
    words = _words(found, argv)
    noted = _notes(found, words)
    if noted.exists():
        return
    python = environment_python(found)
    if python is None:
        raise MscliError(Code.ENGINE_MISSING, f"{found.path} does not tell which Python runs it", "Install vLLM anew.")
    said = _ask(python, words)
    if said is None:
        return
    if ACCEPTED not in said.stdout:
        raise _refused(found, said, profile)
    noted.parent.mkdir(parents=True, exist_ok=True)
    noted.touch()


def _words(found: Installation, argv: Sequence[str]) -> list[str]:
    """The command line as `vllm` itself would be given it: serve, the model, the flags."""
    words = list(argv[len(found.argv) :])
    return ["serve", *(words[1:] if words[:1] == ["--model"] else words)]


def _ask(python: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """What came of it; None where it took too long."""
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
        return None
    except OSError as fault:
        raise MscliError(Code.ENGINE_MISSING, f"{python} does not run: {fault}", "Install vLLM anew.") from fault


def _refused(found: Installation, said: subprocess.CompletedProcess[str], profile: Profile | None) -> MscliError:
    from mscli.engines.vllm.causes import cause

    why = cause(said.stderr or said.stdout, said.returncode)
    of_flags = why.code in _OF_FLAGS
    remedy = _remedy(found, why, said.stdout, profile) if of_flags else why.remedy
    return MscliError(
        Code.ENGINE_UNSUPPORTED if of_flags else Code.ENGINE_MISSING,
        f"{found.path} (vLLM {found.version}): {why.summary}",
        remedy,
        {"cause": why.code, "evidence": list(why.evidence)},
    )


def _remedy(found: Installation, why: Cause, told: str, profile: Profile | None) -> str:
    """Which option of which file to change, and the flag most like it; for a flag of mscli's own, another vLLM."""
    blamed = next((match[1] for line in why.evidence if (match := _BLAMED.search(line))), None)
    if blamed is None or profile is None:
        return why.remedy
    keys = {f"--{key.replace('_', '-')}": key for key in profile.options}
    if blamed not in keys:
        from mscli.engines.vllm.install import VERSION

        known = ", ".join(TRIED)
        return (
            f"mscli wrote {blamed} itself: its flags were tried with vLLM {known}, not with {found.version}. "
            f"Get one of these: mscli engines install vllm=={VERSION}"
        )
    key, flags = keys[blamed], _known(told)
    if new := renamed(profile.engine, found.version, [key]).get(key):
        return f"Write `{new}` in place of `{key}` below `options` in {profile.path}: this vLLM calls it so."
    nearest = [] if blamed in flags else get_close_matches(blamed, flags, n=1)
    like = f" The flag most like it that this vLLM takes is {nearest[0]}." if nearest else ""
    return f"Correct or remove `{key}` below `options` in {profile.path}.{like}"


def _known(told: str) -> list[str]:
    """The flags that the parser knows; empty where it did not come so far."""
    line = next((line for line in told.splitlines() if line.startswith(_KNOWS)), None)
    return list(json.loads(line.removeprefix(_KNOWS))) if line else []


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
