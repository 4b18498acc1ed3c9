"""What the parser of an image's own vLLM says to a command line, before weights are fetched for it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mscli.engines.containers.client import Client, Said, image_id, throw_away
from mscli.engines.containers.run import gpus
from mscli.engines.engine import PLAN, Command, StageListener
from mscli.errors import Code, MscliError
from mscli.paths import places
from mscli.planning.plan import Plan

# The import of vLLM, from an image that nobody has read yet.
TIMEOUT_S = 300.0
_ACCEPTED = "mscli: accepted"
# vLLM's own command with a server that only says that it was reached: the parser and its checks of values stay.
_CHILD = f"""
import sys
from vllm.entrypoints.cli import main, serve
serve.ServeSubcommand.cmd = staticmethod(lambda args: print({_ACCEPTED!r}))
sys.argv = ["vllm", *sys.argv[1:]]
main.main()
"""


def check_flags(client: Client, image: str, command: Command, plan: Plan, listener: StageListener) -> None:
    """Ask the image's vLLM whether it takes the flags of `command`, where that can save a download.

    Not asked again for the same image and flags, nor when the weights are here: then vLLM itself would say the same as
    soon. Takes half a minute. Raises ENGINE_UNSUPPORTED with the parser's words (details["cause"]).
    """
    words = command.argv[command.argv.index(image) + 1 :]  # serve, the model, the flags
    noted = _noted(client, image, words[2:])
    if Path(words[1]).is_absolute() or noted.exists():
        return
    listener.stage(PLAN, f"asking {image} whether its vLLM takes these flags, before weights come")
    run = (*gpus(client.kind, plan.devices), "--env", "HF_HUB_OFFLINE=1", "--entrypoint", "python3")
    said = throw_away(client, *run, image, "-c", _CHILD, *words, timeout_s=TIMEOUT_S)
    if _ACCEPTED in said.out:
        noted.parent.mkdir(parents=True, exist_ok=True)
        noted.touch()
    elif (refused := _refused(image, said)) is not None:
        raise refused


def _refused(image: str, said: Said) -> MscliError | None:
    """The error for what was said; None where it is not about flags: the start itself will tell more."""
    from mscli.engines.vllm.causes import cause

    why = cause(said.text, said.status)
    if why.code not in ("cli_flags", "tools"):
        return None
    details = {"cause": why.code, "evidence": list(why.evidence)}
    return MscliError(Code.ENGINE_UNSUPPORTED, f"{image}: {why.summary}", why.remedy, details)


def _noted(client: Client, image: str, flags: tuple[str, ...]) -> Path:
    """The file whose presence says that these flags were accepted."""
    text = json.dumps([image_id(client, image), flags])
    return places().state / "vllm-flags" / hashlib.sha256(text.encode()).hexdigest()[:32]
