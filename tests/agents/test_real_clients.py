"""The code of `mscli env --for`, run with the real libraries. Run by tests/run_agents, which installs them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents.recorder import Recorder
from support.run_mscli import Mscli

pytestmark = pytest.mark.agents

RUN_BY = {"js": ("node", "code.mjs"), "llm": ("bash", "code.sh")}


@pytest.mark.parametrize("client", ["python", "js", "langchain", "litellm", "pydantic-ai", "llm"])
def test_the_code_for_a_client_is_answered_and_sends_the_models_temperature(
    client: str,
    programs_of: Callable[[str], Path],
    mscli: Mscli,
    served: Recorder,
    user_env: dict[str, str],
    tmp_path: Path,
) -> None:
    programs = programs_of(client)
    program, file = RUN_BY.get(client, (str(programs / "python3"), "code.py"))
    (tmp_path / file).write_text(mscli("env", "rehearsal", "--for", client).out)
    if client == "js":
        (tmp_path / "node_modules").symlink_to(programs.parent / "node_modules")
    env = {**user_env, "PATH": f"{programs}:{user_env['PATH']}"}
    done = subprocess.run(
        [program, file], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Hello! This is a scripted stand-in" in done.stdout
    assert served.exchanges[-1].asked["temperature"] == 0.15
