"""Starts of a real vLLM that fail: each is named, with a remedy, and nothing of it is left."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
from support.run_mscli import Ran
from support.tiny_models import TinyModels
from support.vllm.vllm_home import DEADLINE_S, Home, wait_for

pytestmark = pytest.mark.engines


def assert_nothing_left(home: Home) -> None:
    assert home.belongings() == set()
    assert home.leftovers() == []
    assert home.mscli("status").code == 3


def test_a_wrong_flag_is_named(home: Home, tiny_model: TinyModels) -> None:
    files = tiny_model("small31", formats=("mistral",))
    failed = home.mscli(*home.write("small31", files, options={"enable-reasoning": "true"}), "--no-heal", "--json")
    assert (failed.code, failed.error["code"]) == (1, "start_failed")
    assert failed.error["details"]["cause"] == "cli_flags"
    assert "--enable-reasoning" in failed.error["message"]
    assert_nothing_left(home)


def test_a_wrong_flag_is_named_before_weights_are_fetched(home: Home, tiny_model: TinyModels) -> None:
    up = home.write("small31", tiny_model("small31", formats=("mistral",)), options={"max-model-length": 2048})
    failed = home.mscli(
        *up[:2], "--no-heal", "--offline", "--json"
    )  # the weights are named by repository, and not here
    assert (failed.code, failed.error["code"]) == (1, "engine_unsupported")
    assert failed.error["details"]["cause"] == "cli_flags"
    assert "does not know --max-model-length" in failed.error["message"]
    assert failed.error["hint"].endswith("The closest flag that this vLLM accepts is --max-model-len.")
    assert_nothing_left(home)


def test_a_context_that_the_engine_cannot_hold_names_the_one_it_can(home: Home, tiny_model: TinyModels) -> None:
    # The catalogue entry is that of a smaller model, so that the plan lets the 24B's KV cache through.
    files = tiny_model("small31", "kv24b", formats=("mistral",))
    failed = home.mscli(*home.write("small31", files, context=40000), "--no-heal", "--json")
    assert (failed.code, failed.error["details"]["cause"]) == (1, "oom_kv"), failed.out
    assert "40000" in failed.error["message"]
    assert "--ctx 6400" in failed.error["hint"]
    assert_nothing_left(home)


def test_files_of_the_other_format_are_named(home: Home, tiny_model: TinyModels) -> None:
    files = tiny_model("small31", formats=("mistral",))
    arguments = home.write("small31", files, options={"config-format": "hf", "load-format": "auto"})
    failed = home.mscli(*arguments, "--json")
    assert (failed.code, failed.error["details"]["cause"]) == (1, "tokenizer_format"), failed.out
    assert_nothing_left(home)


def test_a_port_that_is_taken_during_the_start_is_named(home: Home, tiny_model: TinyModels) -> None:
    arguments = home.write("small31", tiny_model("small31", formats=("mistral",)))
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        number = thief.getsockname()[1]
        thief.close()
        call = [sys.executable, "-m", "mscli", *arguments, "--port", str(number), "--json"]
        with subprocess.Popen(call, env=home.env, stdout=subprocess.PIPE, text=True) as up:
            wait_for(lambda: (home.folder / "state/instances/tiny/record.json").exists(), lambda: "it never started")
            with socket.create_server(("127.0.0.1", number)):
                out, _ = up.communicate(timeout=DEADLINE_S)
    failed = Ran(up.returncode, out, "")
    assert (failed.code, failed.error["details"]["cause"]) == (1, "port"), json.dumps(failed.error)
    assert_nothing_left(home)
