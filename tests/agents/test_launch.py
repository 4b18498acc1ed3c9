"""`mscli launch`: what an agent is started with, and when it is refused before it starts."""

from __future__ import annotations

import json
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.agents.page import shapes
from support.run_mscli import Mscli

from mscli.agents.launch import REFUSES, Checked, launch, needed_context, refuse_unfit, warnings
from mscli.agents.table import AGENT_CONTEXT, Deployment, agents
from mscli.errors import Code, MscliError

KEY, MODEL = 'sk-"quoted" $key', "magistral-small"
HERE = Deployment(
    name="one", engine="llama.cpp", base_url="http://127.0.0.1:8000/v1", root="http://127.0.0.1:8000", key=KEY,
    model=MODEL, context=40_960, output=8_192, abilities=("chat", "tools", "vision"), images=1, temperature=0.7,
    stand_in=False,
)  # fmt: skip
JSON_TEXTS = (
    "VIBE_PROVIDERS", "VIBE_MODELS", "OPENCODE_CONFIG_CONTENT", "settings.json", "config.yaml", "metadata.json",
    "extra-openai-models.yaml", "keys.json",
)  # fmt: skip


@pytest.mark.parametrize("name", agents())
def test_an_agent_is_told_address_and_model_and_the_key_stands_on_no_command_line(name: str, tmp_path: Path) -> None:
    made = launch(agents()[name], HERE, tmp_path / "agents" / name, ["--own", "argument"])
    texts = {**made.env, **{path.name: text for path, text in made.files.items()}}
    said = " ".join((*made.argv, *texts.values()))

    assert HERE.root in said
    assert MODEL in said
    assert made.argv[-2:] == ("--own", "argument")
    assert KEY not in " ".join(made.argv)
    assert KEY in said or json.dumps(KEY) in said
    assert all(path.is_relative_to(tmp_path / "agents" / name) for path in made.files)
    for each in texts.keys() & set(JSON_TEXTS):
        json.loads(texts[each])


@pytest.mark.parametrize("name", [name for name in agents() if name not in ("gptme", "claude")])
def test_an_agent_is_told_the_context_where_it_has_a_way(name: str, tmp_path: Path) -> None:
    made = launch(agents()[name], HERE, tmp_path)
    told = name == "llm" or "40960" in " ".join((*made.argv, *made.env.values(), *made.files.values()))
    assert told, f"{name} would assume a context of its own"


def test_with_a_small_context_opencode_is_kept_from_asking_without_end(tmp_path: Path) -> None:
    small = replace(HERE, context=16_384)
    assert launch(agents()["opencode"], small, tmp_path).env["OPENCODE_DISABLE_AUTOCOMPACT"] == "1"
    assert "OPENCODE_DISABLE_AUTOCOMPACT" not in launch(agents()["opencode"], HERE, tmp_path).env


def test_files_are_the_users_alone(tmp_path: Path) -> None:
    made = launch(agents()["llm"], HERE, tmp_path / "one" / "agents" / "llm")
    made.write()
    for path in made.files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path


@pytest.mark.parametrize(
    ("agent", "engine", "abilities"),
    [
        ("codex", "vllm", ("chat", "tools")),
        ("codex", "ollama", ("chat", "tools")),
        ("claude", "mistral.rs", ("chat", "tools")),
        ("vibe", "transformers", ("chat",)),
    ],
)
def test_what_an_engine_cannot_do_for_an_agent_is_said_before_it_starts(
    agent: str, engine: str, abilities: tuple[str, ...]
) -> None:
    with pytest.raises(MscliError) as refused:
        refuse_unfit(agents()[agent], replace(HERE, engine=engine, abilities=abilities))
    assert refused.value.code == Code.ENGINE_UNSUPPORTED
    assert engine in refused.value.message


@pytest.mark.parametrize("engine", ["vllm", "mistral.rs", "ollama"])
def test_behind_the_gateway_every_engine_answers_what_codex_needs(engine: str) -> None:
    with pytest.raises(MscliError) as refused:
        refuse_unfit(agents()["codex"], replace(HERE, engine=engine))
    refuse_unfit(agents()["codex"], replace(HERE, engine=engine, gateway=True))

    assert "--gateway" in refused.value.hint


def test_a_stand_in_needs_more_since_its_tokenizer_counts_more() -> None:
    assert needed_context(agents()["vibe"], replace(HERE, stand_in=True)) == 3 * needed_context(agents()["vibe"], HERE)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A program `llm` on PATH that says what it was started with."""
    folder = tmp_path / "agents-bin"
    folder.mkdir()
    program = folder / "llm"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps({'argv': sys.argv[1:], 'env': dict(os.environ)}))\nsys.exit(7)\n"
    )
    program.chmod(0o755)
    return folder


def test_the_agent_takes_the_place_of_mscli_with_its_own_exit_status(
    mscli: Mscli, user_env: dict[str, str], programs: Path
) -> None:
    assert mscli("up", "rehearsal", "--ctx", "8192").code == 0
    path = f"{programs}:{user_env['PATH']}"
    ran = mscli("launch", "llm", "rehearsal", "--", "-s", "be brief", "--json", env={"PATH": path})
    told = json.loads(ran.out)

    assert ran.code == 7
    assert told["argv"] == ["-s", "be brief", "--json"]
    folder = Path(told["env"]["LLM_USER_PATH"])
    assert folder.parts[-3:] == ("rehearsal", "agents", "llm")
    (model,) = json.loads((folder / "extra-openai-models.yaml").read_text())
    assert model["api_base"] == mscli("env", "--json").data["OPENAI_BASE_URL"]

    shown = mscli("launch", "llm", "--print", "--", "hello world")
    assert shown.out.splitlines()[0] == "env \\"
    assert shown.out.splitlines()[-1] == "  llm 'hello world'"
    listed = mscli("launch", "llm", "--json", "--", "hello")
    assert listed.data["argv"] == ["llm", "hello"]


def test_what_cannot_be_launched_says_what_to_type(mscli: Mscli) -> None:
    assert mscli("launch", "llm").code == 3
    assert mscli("up", "rehearsal", "--ctx", "8192").code == 0

    unknown = mscli("launch", "emacs")
    assert (unknown.code, "vibe" in unknown.err) == (2, True)
    small = mscli("launch", "vibe", "--json")
    assert small.error["code"] == "no_fit"
    assert "mscli up rehearsal --ctx 49152 --replace" in small.error["hint"]
    missing = mscli("launch", "llm", env={"PATH": str(Path(sys.executable).parent)})
    assert "uv tool install llm" in missing.err


def test_a_launch_says_first_what_the_last_check_lost(mscli: Mscli, home: Path, programs: Path) -> None:
    mscli("up", "rehearsal", "--ctx", "8192")
    assert mscli("launch", "llm", "--json").data["warnings"] == [], "a check that was never run is not claimed"
    assert mscli("check", "--for", "agents").code == 0
    assert mscli("launch", "llm", "--json").data["warnings"] == []

    kept = home / "state" / "instances" / "rehearsal" / "agents" / "check.json"
    found = json.loads(kept.read_text())
    assert found["statuses"]["content as a list"] == "ok"
    found["statuses"] |= {"content as a list": "lost", "/v1/responses": "refused"}
    kept.write_text(json.dumps(found) + "\n")
    said = " ".join(mscli("launch", "llm", "--print").err.split())
    assert "lost the tool call, or the answer, of content as a list (sent by pi, Qwen Code" in said
    assert "mscli check --for agents rehearsal" in said
    assert "/v1/responses" not in said, "llm does not send such a one"

    mscli("restart", "rehearsal")
    assert mscli("launch", "llm", "--json").data["warnings"] == [], "another start was not checked"


def test_a_refusal_is_told_to_the_agent_that_sends_such_requests() -> None:
    checked = Checked("mark", {"/v1/responses": "refused", "odd schemas": "ok", "user after user": "refused"})
    assert warnings(agents()["codex"], HERE, checked) == (
        "the last check for agents found refused what Codex sends: user after user, /v1/responses",
    )
    assert warnings(agents()["vibe"], HERE, checked) == warnings(agents()["vibe"], HERE, None) == ()


def test_what_an_engine_is_known_to_refuse_is_told_before_any_check() -> None:
    plain = replace(HERE, engine="vllm")
    assert warnings(agents()["gptme"], plain, None) == (
        "vllm without --gateway refuses what gptme sends: system after assistant",
    )
    checked = Checked("mark", {"system after assistant": "ok"})
    for deployment, last in ((replace(plain, gateway=True), None), (plain, checked), (HERE, None)):
        assert warnings(agents()["gptme"], deployment, last) == ()


@pytest.mark.parametrize("engine", REFUSES)
def test_an_engine_is_known_to_refuse_what_the_page_says(engine: str) -> None:
    column = shapes(engine.removesuffix("-docker"))
    assert REFUSES[engine] == tuple(name for name, status in column.items() if status == "refused")


def test_up_for_agents_has_a_context_in_which_every_agent_can_work(mscli: Mscli) -> None:
    planned = mscli("plan", "rehearsal", "--for", "agents", "--json").data["profiles"][0]
    up = mscli("up", "rehearsal", "--for", "agents", "--json").data
    assert planned["context"] == up["plan"]["context"] == 3 * AGENT_CONTEXT  # a stand-in counts three tokens for one
    assert all(needed_context(agent, replace(HERE, stand_in=True)) <= 3 * AGENT_CONTEXT for agent in agents().values())
    assert mscli("up", "rehearsal", "--for", "agents", "--json").data["already"] is True


def test_up_for_agents_says_where_the_context_is_too_short_for_them(mscli: Mscli) -> None:
    said = mscli("up", "rehearsal", "--for", "agents", "--ctx", "8192", "--json")
    assert [warning for warning in said.data["warnings"] if "coding agents want 98,304 or more" in warning]
    planned = mscli("plan", "--for", "agents", "--on", "RTX 4060 Ti")
    assert "10,240 tokens here; coding agents want 32,768 or more" in " ".join(planned.err.split())
    assert mscli("plan", "--for", "cats").code == 2


def test_the_agents_are_listed_without_an_instance(mscli: Mscli) -> None:
    listed = mscli("launch", "--json").data["agents"]
    assert set(listed) == set(agents())
    assert all(agent["title"] in mscli("launch").out for agent in listed.values())
