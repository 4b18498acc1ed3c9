"""What vLLM's own parser says to a command line, before any weight is fetched or loaded: that of a Python environment,
and that inside a container image."""

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
from mscli.diagnosis.causes import Cause
from mscli.engines.containers.client import Client, Said, image_id, throw_away
from mscli.engines.containers.run import gpus
from mscli.engines.engine import PLAN, Command, Installation, StageListener
from mscli.engines.installed import ask
from mscli.engines.vllm.flags import renamed
from mscli.engines.vllm.installation import environment_python
from mscli.errors import Code, MscliError
from mscli.paths import places
from mscli.planning.plan import Plan

# Importing vLLM's parser takes about 10 s, and a minute where nothing is in the disk cache yet.
TIMEOUT_S = 180.0
# The same in a container, from an image that nobody has read yet.
IMAGE_TIMEOUT_S = 300.0
# Versions whose own parsers took the command lines of all shipped profiles, on every kind of machine in the tests.
TRIED = ("0.8.1", "0.10.2", "0.19.1", "0.22.1", "0.32.0", "0.33.0")
ACCEPTED = "mscli: accepted"
_KNOWS = "mscli: knows "
# vLLM's own command with a server that only says that it was reached: the parser and its checks of values stay.
_REACHED = f"""
import argparse, gc, json, sys
from vllm.entrypoints.cli import main, serve
serve.ServeSubcommand.cmd = staticmethod(lambda args: print({ACCEPTED!r}))
sys.argv = ["vllm", *sys.argv[1:]]
"""
_CHILD_IN_IMAGE = f"{_REACHED}main.main()"
# What it refuses it names without saying what it would take instead, so here the parser's flags are told as well.
_CHILD = f"""{_REACHED}
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
    might refuse (its version was not tried, or the profile adds flags of its own) or not run at all (mscli installed
    it, so maybe nobody has ever started it), and it was not asked before."""
    words = _words(found, argv)
    tried = (found.version or "").partition("+")[0] in TRIED
    doubtful = bool(profile.options) or not tried or found.kind == "own"
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
        raise MscliError(Code.ENGINE_MISSING, f"{found.path} does not say which Python runs it", "Reinstall vLLM.")
    said = _ask(python, words)
    if said is None:
        return
    if ACCEPTED not in said.stdout:
        raise _refused(found, said, profile)
    _note(noted)


def check_image_flags(client: Client, image: str, command: Command, plan: Plan, listener: StageListener) -> None:
    """Ask the image's vLLM whether it takes the flags of `command`, where that can save a download.

    Not asked again for the same image and flags, nor when the weights are here: then vLLM itself would say the same as
    soon. Takes half a minute. Raises ENGINE_UNSUPPORTED with the parser's words (details["cause"]).
    """
    words = command.argv[command.argv.index(image) + 1 :]  # serve, the model, the flags
    noted = _noted_at(image_id(client, image), list(words[2:]))
    if Path(words[1]).is_absolute() or noted.exists():
        return
    listener.stage(PLAN, f"checking that vLLM in {image} accepts these flags, before downloading weights")
    run = (*gpus(client.kind, plan.devices), "--env", "HF_HUB_OFFLINE=1", "--entrypoint", "python3")
    said = throw_away(client, *run, image, "-c", _CHILD_IN_IMAGE, *words, timeout_s=IMAGE_TIMEOUT_S)
    if ACCEPTED in said.out:
        _note(noted)
    elif (refused := _refused_by_image(image, said)) is not None:
        raise refused


def _refused_by_image(image: str, said: Said) -> MscliError | None:
    """The error for what was said; None where it is not about flags: the start itself will tell more."""
    from mscli.diagnosis.diagnose import start_failure

    why = start_failure(said.text, "vllm", said.status)
    if why.code not in _OF_FLAGS:
        return None
    details = {"cause": why.code, "evidence": list(why.evidence)}
    return MscliError(Code.ENGINE_UNSUPPORTED, f"{image}: {why.summary}", why.remedy, details)


def _words(found: Installation, argv: Sequence[str]) -> list[str]:
    """The command line as `vllm` itself would be given it: serve, the model, the flags."""
    words = list(argv[len(found.argv) :])
    return ["serve", *(words[1:] if words[:1] == ["--model"] else words)]


def _ask(python: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """What came of it; None where it took too long."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    try:
        return ask([python, "-c", _CHILD, *words], TIMEOUT_S, env)
    except subprocess.TimeoutExpired:
        return None
    except OSError as fault:
        raise MscliError(Code.ENGINE_MISSING, f"{python} does not run: {fault}", "Reinstall vLLM.") from fault


def _refused(found: Installation, said: subprocess.CompletedProcess[str], profile: Profile | None) -> MscliError:
    from mscli.diagnosis.diagnose import start_failure

    why = start_failure(said.stderr or said.stdout, "vllm", said.returncode)
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
        from mscli.engines.vllm.installation import VERSION

        known = ", ".join(TRIED)
        return (
            f"mscli wrote {blamed} itself: its flags were tried with vLLM {known}, not with {found.version}. "
            f"Get one of these: mscli engines install vllm=={VERSION}"
        )
    key, flags = keys[blamed], _known(told)
    if new := renamed(found.version, [key]).get(key):
        return f"Write `{new}` in place of `{key}` under `options` in {profile.path}: this vLLM calls it so."
    nearest = [] if blamed in flags else get_close_matches(blamed, flags, n=1)
    like = f" The closest flag that this vLLM accepts is {nearest[0]}." if nearest else ""
    return f"Correct or remove `{key}` under `options` in {profile.path}.{like}"


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
    return _noted_at(found.version, str(found.path), fixed)


def _noted_at(*accepted: object) -> Path:
    return places().state / "vllm-flags" / hashlib.sha256(json.dumps(accepted).encode()).hexdigest()[:32]


def _note(noted: Path) -> None:
    noted.parent.mkdir(parents=True, exist_ok=True)
    noted.touch()
