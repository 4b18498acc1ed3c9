"""Real agents, launched on the rehearsal: each answers, calls a tool, and leaves its user's configuration as it was.

Run by tests/run_agents, which installs them and says which are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents.arguments import INSTRUCTED, arguments
from support.agents.recorder import Recorder

pytestmark = pytest.mark.agents

PROMPT = "What is the weather in Paris? Use the tool."
# What each is asked with, without a terminal; and what of another provider its user has configured before.
ARGS = {
    **arguments(PROMPT),
    "llm": (
        "--functions",
        "def get_weather(city: str) -> str:\n    'The weather in a city now'\n    return 'sunny'",
        PROMPT,
    ),
}
CONFIGURED = {
    "vibe": {
        ".vibe/config.toml": 'active_model = "mine"\n\n[[providers]]\nname = "mine"\napi_style = "openai"\n'
        'api_base = "http://127.0.0.1:9/v1"\nbackend = "generic"\n\n'
        '[[models]]\nname = "mine"\nprovider = "mine"\nalias = "mine"\n'
    },
    "opencode": {
        ".config/opencode/opencode.json": '{"$schema": "https://opencode.ai/config.json", "model": "mine/mine"}'
    },
    "codex": {
        ".codex/config.toml": 'model = "mine"\nmodel_provider = "mine"\n\n[model_providers.mine]\nname = "mine"\n'
        'base_url = "http://127.0.0.1:9/v1"\nwire_api = "responses"\n'
    },
    "pi": {".pi/agent/settings.json": json.dumps({"defaultProvider": "anthropic"})},
    "qwen": {".qwen/settings.json": json.dumps({"model": {"name": "mine"}, "$version": 3})},
    "continue": {".continue/config.yaml": "name: mine\nversion: 1.0.0\nschema: v1\nmodels: []\n"},
    "aider": {".aider.conf.yml": "model: openai/mine\n"},
    "llm": {".config/io.datasette.llm/keys.json": json.dumps({"openai": "sk-of-the-user"})},
}
CALLS_NO_TOOL = ("aider",)  # its edits come as text
REWRITES = ("qwen",)


GATEWAY = ("--ctx", "131072", "--gateway")


@pytest.mark.parametrize(
    ("agent", "served"),
    [*((agent, ("--ctx", "131072")) for agent in ARGS), ("codex", GATEWAY), ("vibe", GATEWAY)],
    ids=[*ARGS, "codex-gateway", "vibe-gateway"],
    indirect=["served"],
)
def test_a_launched_agent_answers_calls_a_tool_and_leaves_its_users_files_alone(
    agent: str, programs_of: Callable[[str], Path], served: Recorder, user_env: dict[str, str], tmp_path: Path
) -> None:
    programs = programs_of(agent)
    home, project = Path(user_env["HOME"]), tmp_path / "project"
    project.mkdir()
    for name, text in CONFIGURED[agent].items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    path = f"{programs}:{os.environ['PATH']}"
    # Whoever would call home meets a closed port.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    env = {**user_env, **nowhere, "PATH": path, "TERM": "dumb", "OPENAI_API_KEY": "sk-of-the-user"}
    (tmp_path / "instructions.md").write_text("You are a coding agent.\n")
    env |= {INSTRUCTED[agent]: str(tmp_path / "instructions.md")} if agent in INSTRUCTED else {}
    if agent in REWRITES:  # its own file, at any start: what it makes of it without mscli is the user's
        # A server that refuses at once: one that cannot be reached would be asked again for two minutes.
        ended([agent, *ARGS[agent]], {**env, "OPENAI_BASE_URL": f"http://127.0.0.1:{served.port}/nothing"}, project)
    before = hashes(home)
    done = ended([sys.executable, "-m", "mscli", "launch", agent, "rehearsal", "--", *ARGS[agent]], env, project)
    said = f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n" + "\n".join(
        f"{each.path} {each.status} {each.answer[:300]}" for each in served.exchanges
    )
    assert done.returncode == 0, said
    assert any(each.path.startswith("/v1/") and each.status == 200 for each in served.exchanges), said
    assert "sk-of-the-user" not in json.dumps([each.asked for each in served.exchanges])
    if agent not in CALLS_NO_TOOL:
        assert served.calls(), said
        assert served.results(), said
    after = hashes(home)
    changed = {name for name, digest in before.items() if after.get(name) != digest}
    assert not changed, f"{agent} with mscli changed {changed}"


def ended(argv: list[str], env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """An agent, to its end."""
    program = shutil.which(argv[0], path=env["PATH"]) or argv[0]
    return subprocess.run(
        [program, *argv[1:]], env=env, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def hashes(home: Path) -> dict[str, str]:
    """Every file of a home but mscli's own, by its content."""
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in home.rglob("*")
        if path.is_file() and not path.is_symlink() and path.relative_to(home).parts[0] != "home"
    }
