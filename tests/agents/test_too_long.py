"""A request longer than the context, by real agents: each ends and says why. Run by tests/run_agents."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents.arguments import arguments
from support.agents.recorder import recording
from support.run_mscli import Mscli

from mscli.agents.table import agents

pytestmark = pytest.mark.agents

# Words that no tokenizer knows, as much of them as one argument can hold.
_RANDOM = random.Random(1)
PROMPT = " ".join("".join(_RANDOM.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(15_000))
ARGS = {
    **arguments(PROMPT),
    "gptme": ("--non-interactive", "--no-confirm", PROMPT),
    "llm": (PROMPT,),
}
REFUSED, COMPACTED = "exceeds the available context size", "This is a scripted stand-in"
# Exit status and what stands on the screen, as the table in docs/how-to/agents.md tells it.
SEEN = {
    "vibe": (2, REFUSED), "opencode": (1, REFUSED), "codex": (1, REFUSED), "pi": (1, REFUSED), "qwen": (1, REFUSED),
    "continue": (0, COMPACTED), "aider": (0, REFUSED), "gptme": (1, REFUSED), "llm": (1, REFUSED),
}  # fmt: skip
MOST_REQUESTS, TIMEOUT_S = 6, 200


@pytest.mark.parametrize("agent", ARGS)
def test_an_agent_ends_and_says_that_the_request_is_too_long(
    agent: str, programs_of: Callable[[str], Path], mscli: Mscli, user_env: dict[str, str], home: Path, tmp_path: Path
) -> None:
    programs, least = programs_of(agent), agents()[agent].least_context
    port = mscli("up", "rehearsal", "--ctx", str(least), "--json").data["instance"]["port"]
    record = home / "state" / "instances" / "rehearsal" / "record.json"
    project = tmp_path / "project"
    project.mkdir()
    env = {**user_env, "PATH": f"{programs}:{os.environ['PATH']}", "TERM": "dumb"}
    argv = [sys.executable, "-m", "mscli", "launch", agent, "rehearsal", "--", *ARGS[agent]]
    kept = json.loads(record.read_text())
    with recording(port, tools=False) as recorder:
        # As on a real model, of which an agent needs no more than this.
        record.write_text(json.dumps({**kept, "port": recorder.port, "stand_in": False}))
        done = subprocess.run(
            argv, env=env, cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
        record.write_text(json.dumps(kept))
    said = " ".join((done.stdout + done.stderr).replace(PROMPT, "PROMPT").split())
    status, words = SEEN[agent]
    assert done.returncode == status, said[-2000:]
    assert words in said, said[-2000:]
    assert len(recorder.exchanges) <= MOST_REQUESTS
