"""`mscli doctor --report` as a user gets it: all that a helper needs, and nothing that is private."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.doctor.in_process import Doctor, doctor_of
from support.instances.leftovers import Leftovers, dead_identity
from support.run_mscli import Mscli

from mscli.instances.store import write_private

USER, HOST = "zqalice", "zqbox"
SECRETS = {
    "HF_TOKEN": "hf_zqFromTheEnvironment00",
    "OPENAI_API_KEY": "zq-key-of-another-service",
    "DB_PASSWORD": 'p"w\\zq word',
    "MY_SECRET": "zqs3",
    "PROXY_AUTH": "zqproxyuser:zqproxypass",
}
KEY = "zqKeyOfTheInstance0123456789"
PROFILE_SECRET, STORED = "zqInTheProfile123", "hf_zqStoredOnDisk12345"
PROMPT, ANSWER = "zqPrompt my illness", "zqAnswer take this"
UUID = "GPU-5d1c0712-1111-2222-3333-444455556666"
LOG = f"""\
build: 9999 for Linux on {HOST}
load_model: loading model '/home/{USER}/models/mistral.gguf' for {USER}@{HOST}
srv  log_server_r: request: {json.dumps({"messages": [{"role": "user", "content": f'say "{PROMPT}" twice'}]})}
srv  log_server_r: response: {json.dumps({"choices": [{"message": {"content": ANSWER}}]})}
client 10.20.30.40 with key {KEY} and {PROFILE_SECRET}, mail zqalice.quill@corp.example.com
curl https://{USER}:zqpass@hub.example.com/x?sig=zqsig, {UUID}, 02:42:ac:11:00:02, 2001:db8::5
ggml_backend_cuda_buffer_type_alloc_buffer: allocating 5120.00 MiB on device 0: cudaMalloc failed: out of memory
llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache
"""
SECTIONS = ("Machine", "Engines", "Findings", "Plan", "Instances", "Environment", "Log")
PRIVATE = (
    *SECRETS.values(), *(json.dumps(value)[1:-1] for value in SECRETS.values()), KEY, PROFILE_SECRET, STORED, PROMPT,
    ANSWER, USER, HOST, "10.20.30.40", "zqalice.quill", "zqpass", "zqsig", UUID[4:], "02:42:ac", "2001:db8",
)  # fmt: skip


@pytest.fixture
def private_env(user_env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Of a user with secrets in every place."""
    folder = tmp_path / USER
    token = folder / ".cache" / "huggingface" / "token"
    token.parent.mkdir(parents=True)
    token.write_text(STORED + "\n")
    proxy = f"http://{SECRETS['PROXY_AUTH']}@10.20.30.40:3128"
    plain = {"USER": USER, "HOSTNAME": HOST, "HOME": str(folder), "https_proxy": proxy, "CUDA_VISIBLE_DEVICES": UUID}
    return {**user_env, **SECRETS, **plain, "HF_HUB_CACHE": str(folder / "hub"), "MSCLI_HOME": str(folder / "mscli")}


@pytest.fixture
def crashed(private_env: dict[str, str], tmp_path: Path) -> Iterator[Leftovers]:
    """An instance that died, with all that is private in its record, log and key."""
    left = Leftovers(private_env, tmp_path)
    record = left.record("broken", dead_identity())
    key = left.records.run_dir("broken") / "key"
    write_private(key, KEY + "\n")
    left.records.save(
        replace(
            record, api_key_file=key, engine_version="9999", since=2e9,
            argv=("llama-server", "--host", HOST, "--model", f"/home/{USER}/x.gguf", "--hf-token", SECRETS["HF_TOKEN"]),
            env={"HF_TOKEN": PROFILE_SECRET, "ZQ_NAMELESS": "zqpass"},
        )
    )  # fmt: skip
    record.log.write_text(LOG)
    profiles = Path(private_env["MSCLI_HOME"]) / "config" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "mine.yaml").write_text(
        "title: Mine\nengine: llama.cpp\nmodel: rehearsal\nvariant: q8_0\ndevice: cpu\nautomatic: false\n"
        f"options: {{ssl-key-password: {PROFILE_SECRET}, log-file: /home/{USER}/log}}\n"
        f"env: {{HF_TOKEN: {PROFILE_SECRET}, ZQ_NAMELESS: zqpass}}\n"
    )
    yield left
    left.stop()


@pytest.fixture
def doctor(private_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """`mscli doctor` of that user."""
    return doctor_of(private_env, monkeypatch, capsys)


def test_the_whole_report_holds_nothing_private(
    mscli: Mscli, crashed: Leftovers, private_env: dict[str, str], tmp_path: Path
) -> None:
    target = tmp_path / "report.md"
    done = mscli("doctor", "mine", "--report", str(target), "--json", env=private_env)

    assert done.data["report_file"] == str(target)
    assert target.stat().st_mode & 0o777 == 0o600
    text = target.read_text()
    assert [private for private in PRIVATE if private in text] == []
    if len(platform.node()) >= 6:  # a short one, such as vm, is part of other words
        assert platform.node() not in text
    assert str(Path.home()) + "/" not in text
    assert str(private_env["HOME"]) not in text


def test_the_whole_report_holds_what_a_helper_needs(
    mscli: Mscli, crashed: Leftovers, private_env: dict[str, str], machine: Callable[..., dict[str, str]]
) -> None:
    text = mscli("doctor", "mine", "--report", "-", env={**private_env, **machine("rtx4090-x2")}).out

    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == [f"## {each}" for each in SECTIONS]
    for needed in (
        *(f"Python {platform.python_version()}", "NVIDIA GeForce RTX 4090", "23.99 GiB", "GPU-005d..."),
        *("| llama.cpp |", "host.ram", "mine (requested)", "verdict safe", "--ctx-size"),
        *("| broken | crashed | rehearsal | llama.cpp | 9999 |", "CUDA_VISIBLE_DEVICES=", "HF_TOKEN (set)"),
        *("oom_kv", "loading model '~/models/mistral.gguf'", "cudaMalloc failed: out of memory", "HF_TOKEN=[secret]"),
    ):
        assert needed in text, needed


def test_a_token_that_colors_divide_is_found_and_no_sequence_is_left(
    doctor: Doctor, crashed: Leftovers, tmp_path: Path
) -> None:
    other = tmp_path / "other.log"
    other.write_text("ERROR token hf_zq\x1b[0mColored0123 \x1b]0;title\x07refused\n")
    text = doctor("--report", "-", "--log", str(other)).out
    assert "[secret]" in text
    for gone in ("Colored", "\x1b", "\x07"):
        assert gone not in text


def test_a_log_can_be_named(doctor: Doctor, crashed: Leftovers, tmp_path: Path) -> None:
    other = tmp_path / "other.log"
    other.write_text("RuntimeError: CUDA error: uncorrectable ECC error encountered\n")
    text = doctor("--report", "-", "--log", str(other)).out
    assert "- ecc (" in text
    assert "cudaMalloc" not in text
    assert "oom_kv" in doctor("--report", "-", "--log", "broken").out


def test_a_start_that_failed_is_what_the_report_is_about(doctor: Doctor, crashed: Leftovers) -> None:
    crashed.record("fine", stopped_at=2.0).log.write_text("all is well\n")
    crashed.records.forget("broken")
    assert "cudaMalloc failed" in doctor("--report", "-").out


def test_a_report_without_anything_to_tell_is_whole_too(doctor: Doctor) -> None:
    text = doctor("--report", "-").out
    assert "No profile given, nothing running." in text
    assert text.rstrip().endswith("None.")


def test_a_running_instance_is_shown_with_its_plan(mscli: Mscli) -> None:
    assert mscli("up", "rehearsal").code == 0
    text = mscli("doctor", "--report", "-").out
    assert "### rehearsal (running)" in text
    assert "| rehearsal | ready | rehearsal | llama.cpp |" in text


def test_a_profile_that_cannot_be_read_does_not_keep_the_report_from_being_made(
    doctor: Doctor, crashed: Leftovers, private_env: dict[str, str]
) -> None:
    path = Path(private_env["MSCLI_HOME"]) / "config" / "profiles" / "mine.yaml"
    path.write_text("tile: Mine\n")
    text = doctor("mine", "--report", "-").out
    assert "Cannot use the profile" in text
    assert "did you mean 'title'?" in text
    assert USER not in text


def test_in_a_folder_the_report_gets_a_name_and_says_it(doctor: Doctor, tmp_path: Path) -> None:
    done = doctor("--report", str(tmp_path))
    path = Path(done.out.strip())
    assert path.parent == tmp_path
    assert path.read_text().startswith("# mscli doctor report")


def test_a_file_that_is_no_report_is_not_overwritten(doctor: Doctor, tmp_path: Path) -> None:
    mine = tmp_path / "mine.md"
    mine.write_text("# my notes\n")
    refused = doctor("--report", str(mine), "--json")
    assert (refused.code, refused.error["code"]) == (1, "file")
    assert mine.read_text() == "# my notes\n"
    assert doctor("--report", str(tmp_path / "a.md")).code == 0
    assert doctor("--report", str(tmp_path / "a.md")).code == 0, "an older report may be replaced"


def test_json_holds_the_report_itself_where_no_file_was_named(doctor: Doctor) -> None:
    data = doctor("--report", "-", "--json").data
    assert data["report_file"] is None
    assert data["report"].startswith("# mscli doctor report")
    assert data["findings"]


def test_fences_are_longer_than_any_in_a_log(doctor: Doctor, crashed: Leftovers) -> None:
    crashed.records.run_dir("broken").joinpath("log").write_text("before\n`````\nafter\n")
    text = doctor("--report", "-").out
    assert "``````text\nbefore\n`````\nafter\n``````\n" in text


def test_a_fault_of_mscli_itself_is_told(doctor: Doctor, private_env: dict[str, str]) -> None:
    path = Path(private_env["MSCLI_HOME"]) / "state" / "last-fault.txt"
    path.parent.mkdir(parents=True)
    path.write_text(f'Traceback\n  File "/home/{USER}/mscli/cli/main.py", line 1\nKeyError: 5\n')
    text = doctor("--report", "-").out
    assert "KeyError: 5" in text
    assert USER not in text
