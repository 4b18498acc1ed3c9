"""Starts of a real vLLM that fail at first and end ready without help."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.run_mscli import Ran
from support.tiny_models import TinyModels
from support.vllm.command_lines import command
from support.vllm.vllm_home import DEADLINE_S, Client, Home, wait_for

from mscli.catalog.profile import OptionValue
from mscli.engines.vllm.installation import installation
from mscli.engines.vllm.parser import check_flags
from mscli.errors import MscliError
from mscli.lifecycle.healing.flag_renames import respelt

pytestmark = pytest.mark.engines


def answers(data: dict[str, Any]) -> bool:
    """Whether the instance serves its scripted reply."""
    instance = data["instance"]
    return "scripted stand-in" in str(Client(instance["base_url"], instance["model"]).chat("hello")["content"])


def test_a_context_that_the_engine_cannot_hold_becomes_the_one_it_can(home: Home, tiny_model: TinyModels) -> None:
    # The catalogue entry is that of a smaller model, so that the plan lets the 24B's KV cache through.
    arguments = home.write("small31", tiny_model("small31", "kv24b", formats=("mistral",)), context=40000)
    done = home.mscli(*arguments, "--json")
    assert done.code == 0, done.out
    healed = done.data["healed"]
    assert [(heal["cause"], heal["change"]) for heal in healed] == [("oom_kv", "a context of at most 6,400 tokens")]
    assert done.data["instance"]["context"] == done.data["observed"]["context"] == 6400
    assert home.instance()["context"] == 6400
    assert answers(done.data)
    home.mscli("down", "--all")
    again = home.mscli(*arguments, "--events")
    events = [json.loads(line) for line in again.out.splitlines()]
    assert (again.code, [event for event in events if event.get("event") == "heal"]) == (0, []), again.out
    assert any("with earlier adjustments" in str(event.get("text")) for event in events)
    assert events[-1]["data"]["instance"]["context"] == 6400


def test_flags_of_an_older_version_are_respelt(home: Home, tiny_model: TinyModels) -> None:
    older = {"enable-reasoning": "true", "limit-mm-per-prompt": "image=2", "swap-space": "4"}
    done = home.mscli(*home.write("small31", tiny_model("small31", formats=("mistral",)), options=older), "--json")
    assert done.code == 0, done.out
    assert {heal["cause"] for heal in done.data["healed"]} == {"cli_flags"}
    argv = done.data["plan"]["command"]["argv"]
    assert json.loads(argv[argv.index("--limit-mm-per-prompt") + 1]) == {"image": 2}
    assert not {"--enable-reasoning", "--swap-space"} & set(argv)
    assert answers(done.data)


# Flags of older versions, with what older guides give them.
OLDER: dict[str, OptionValue] = {
    "enable-reasoning": True,
    "disable-log-requests": True,
    "swap-space": 4,
    "num-scheduler-steps": 8,
    "use-v2-block-manager": True,
    "max-seq-len-to-capture": 8192,
    "disable-frontend-multiprocessing": True,
    "tokenizer-pool-size": 0,
    "preemption-mode": "swap",
    "num-lookahead-slots": 0,
    "scheduler-delay-factor": 0.5,
    "multi-step-stream-outputs": True,
    "disable-async-output-proc": True,
    "full-cuda-graph": True,
    "worker-use-ray": True,
    "engine-use-ray": True,
    "disable-mm-preprocessor-cache": True,
    "guided-decoding-backend": "xgrammar",
    "task": "generate",
    "cuda-graph-sizes": 8,
}


def test_what_is_said_in_place_of_older_flags_is_accepted(
    vllm_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path))
    seen = installation(vllm_place / "bin" / "vllm", "named")
    found = replace(seen, version=(seen.version or "").partition("+")[0])
    with pytest.raises(MscliError) as refused:
        check_flags(found, command(found=found, options=OLDER).argv)
    said = "\n".join(map(str, refused.value.details["evidence"]))  # type: ignore[call-overload]
    options = respelt("vllm", said, OLDER)
    assert options is not None, said
    assert all(options[flag] is False for flag in OLDER), "each of them is refused by this version"
    check_flags(found, command(found=found, options={**OLDER, **options}).argv)


def test_a_port_that_is_taken_during_the_start_is_given_up_for_another(home: Home, tiny_model: TinyModels) -> None:
    arguments = home.write("small31", tiny_model("small31", formats=("mistral",)))
    record = home.folder / "state" / "instances" / "tiny" / "record.json"
    with subprocess.Popen(
        [sys.executable, "-m", "mscli", *arguments, "--json"], env=home.env, stdout=subprocess.PIPE, text=True
    ) as up:
        wait_for(record.exists, lambda: "it never started")
        number = json.loads(record.read_text())["port"]
        with socket.create_server(("127.0.0.1", number)):
            out, _ = up.communicate(timeout=DEADLINE_S)
    done = Ran(up.returncode, out, "")
    assert done.code == 0, out
    assert [heal["cause"] for heal in done.data["healed"]] == ["port"]
    assert done.data["instance"]["port"] != number
    assert answers(done.data)
