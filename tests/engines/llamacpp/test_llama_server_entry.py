"""`python -m mscli.engines.llamacpp.embedded`: llama-server's flags over the wheel, and its complaints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ENTRY = [sys.executable, "-m", "mscli.engines.llamacpp.embedded"]


def complaint(*flags: str) -> str:
    """The one line it ends with, at status 1."""
    ended = subprocess.run([*ENTRY, *flags], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1, ended.stderr
    [line] = ended.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--bogus"], "error: invalid argument: --bogus"),
        (["--model"], "error: expected value for argument --model"),
        ([], "error: --model is required"),
        (["--port", "99999"], 'error while handling argument "--port": port 99999 is not between 0 and 65535'),
        (["--port", "-1"], 'error while handling argument "--port": port -1 is not between 0 and 65535'),
        (["-ctk", "q9"], 'error while handling argument "-ctk": Unsupported cache type: q9'),
        (["-c", "99999999999"], 'error while handling argument "-c": value too large to convert to int32_t'),
    ],
)
def test_a_bad_command_line_ends_with_one_line_in_llama_servers_words(flags: list[str], said: str) -> None:
    assert complaint(*flags) == said


def test_an_unknown_word_for_a_choice_lists_the_choices() -> None:
    assert "on, off, auto" in complaint("--flash-attn", "maybe")


@pytest.mark.parametrize("layers", ["99", "all"])
def test_layers_for_a_gpu_that_is_not_there_are_refused_and_not_computed_on_the_cpu(layers: str) -> None:
    assert "no usable GPU found" in complaint("--model", "m.gguf", "--gpu-layers", layers)


def test_a_key_file_without_a_key_would_leave_the_server_open(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")

    assert "no API key" in complaint("--model", "m.gguf", "--api-key-file", str(tmp_path / "key"))


def test_the_version_is_told_without_a_model() -> None:
    told = subprocess.run([*ENTRY, "--version"], capture_output=True, text=True, timeout=30, check=True)

    assert told.stderr.startswith("version: xllamacpp 20")


def test_without_the_wheel_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError(\"No module named 'xllamacpp'\")")
    line = subprocess.run(
        [*ENTRY, "--model", "m.gguf"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PYTHONPATH": str(tmp_path)},
    )

    assert line.returncode == 1
    assert line.stderr.splitlines() == [
        "error: the xllamacpp wheel cannot be used (No module named 'xllamacpp'); pip install 'mscli[embedded]'"
    ]
