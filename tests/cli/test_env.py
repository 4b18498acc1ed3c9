"""`mscli env`: what clients need to know, and code that works as it is."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess

import pytest
from support.run_mscli import Mscli

from mscli.cli.clients import SNIPPETS


def test_the_variables_tell_what_was_loaded(mscli: Mscli) -> None:
    mscli("up", "rehearsal", "--ctx", "2048")
    told = mscli("env", "--json").data

    assert told["OPENAI_API_BASE"] == told["OPENAI_BASE_URL"]
    assert told["OPENAI_BASE_URL"] == f"{told['MSCLI_ROOT_URL']}/v1"
    assert told["MSCLI_CONTEXT"] == "2048"
    assert int(told["MSCLI_MAX_OUTPUT"]) <= 1024
    assert told["MSCLI_ABILITIES"].split() == ["chat", "vision", "tools"]
    assert "OLLAMA_HOST" not in told


def test_the_code_for_curl_is_answered(mscli: Mscli, user_env: dict[str, str]) -> None:
    if not shutil.which("curl"):
        pytest.skip("no curl here")
    mscli("up", "rehearsal")
    code = mscli("env", "--for", "curl").out
    done = subprocess.run(["sh", "-c", code], env=user_env, capture_output=True, text=True, timeout=60)

    assert "Hello! This is a scripted stand-in" in json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_code_names_the_server_and_the_model_and_never_the_key(mscli: Mscli) -> None:
    mscli("up", "rehearsal", env={"MSCLI_API_KEY": "sk-only-for-the-test"})
    url = mscli("env", "--json").data["OPENAI_BASE_URL"]
    for client in SNIPPETS:
        code = mscli("env", "--for", client).out
        if client not in ("curl", "js", "llm"):
            ast.parse(code)
        assert url in code, client
        assert "rehearsal" in code, client
        assert "0.15" in code, client
        assert "sk-only-for-the-test" not in code, client


def test_an_unknown_client_is_told_the_known_ones(mscli: Mscli) -> None:
    refused = mscli("env", "--for", "emacs")

    assert refused.code == 2
    assert all(client in refused.err for client in SNIPPETS)
