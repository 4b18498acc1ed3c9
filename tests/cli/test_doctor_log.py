"""`mscli doctor --log` as a user and a script see it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mscli.cli.main import main
from mscli.diagnosis import log as logs

ECC = "RuntimeError: CUDA error: uncorrectable ECC error encountered"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path / "home"))


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", *argv, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_cause_is_given_whole_and_exits_with_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "engine.log"
    path.write_text(f"loading\n{ECC}\n")
    code, envelope = answer(capsys, "--log", str(path))

    assert code == 5
    assert envelope["ok"] is True
    (cause,) = envelope["data"]["causes"]
    assert set(cause) == {"code", "confidence", "evidence", "summary", "remedy", "scope", "live"}
    assert cause["code"] == "ecc"
    assert cause["evidence"] == [ECC]
    assert 0.9 < cause["confidence"] < 1


def test_text_shows_evidence_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "engine.log"
    path.write_text(ECC)

    assert main(["doctor", "--log", str(path)]) == 5
    printed = capsys.readouterr().out
    assert "ecc (almost certain" in printed
    assert f"| {ECC}" in printed
    assert "nvidia-smi -q" in printed


@pytest.mark.parametrize("text", ["all is well\n", ""])
def test_unknown_is_said_plainly_and_exits_with_0(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "engine.log"
    path.write_text(text)

    assert main(["doctor", "--log", str(path)]) == 0
    assert "unknown" in capsys.readouterr().out
    code, envelope = answer(capsys, "--log", str(path))
    assert (code, envelope["data"]["causes"]) == (0, [])


def test_without_a_cause_the_last_errors_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, says = tmp_path / "engine.log", "ERROR 11-30 16:20:01 [core.py:790] "
    early = [f"quadrant {name} not available" for name in ("north", "east", "south", "west")]
    path.write_text(
        "\n".join(
            [
                *early,
                "loading",
                f"{says}    assert self.moon",
                f"{says}           ^^^^^^^^^",
                f"{says}AssertionError",
                "goodbye",
            ]
        )
    )

    assert main(["doctor", "--log", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Cause unknown")
    assert f"| {says}AssertionError" in printed
    assert "quadrant north" not in printed
    assert "^^^" not in printed
    assert answer(capsys, "--log", str(path))[1]["data"]["errors"][-1] == f"{says}AssertionError"


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{ECC}\n\xff".encode("latin-1"))))
    code, envelope = answer(capsys, "--log", "-", "--backend", "vllm-docker")

    assert code == 5
    assert envelope["data"]["causes"][0]["code"] == "ecc"


def test_a_pipe_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import os
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(ECC,))
    writer.start()
    code, envelope = answer(capsys, "--log", str(pipe))
    writer.join(10)

    assert (code, envelope["data"]["causes"][0]["code"]) == (5, "ecc")


def test_an_instance_that_failed_has_a_log_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "home" / "state" / "instances" / "mine" / "log"
    path.parent.mkdir(parents=True)
    path.write_text(f"{ECC}\n")

    assert answer(capsys, "--log", "mine")[1]["data"]["causes"][0]["code"] == "ecc"


@pytest.mark.parametrize("log", ["nowhere", "logs/vllm.log", "/no/such/file", "/"])
def test_what_is_no_log_is_named(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, envelope = answer(capsys, "--log", log)

    assert code == 1
    assert envelope["error"]["message"] == f"no file or instance is named {log!r}"
    assert envelope["error"]["hint"]


def test_of_a_long_log_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.log"
    with path.open("wb") as handle:
        handle.truncate(logs.READ_BYTES + 10)
        handle.seek(0, 2)
        handle.write(b"\nlast\n")
    text, cut = logs.read_log(path)

    assert cut
    assert len(text) == logs.READ_BYTES
    assert text.endswith("last\n")


def test_of_a_long_stream_the_end_is_kept() -> None:
    stream = io.BytesIO(b"first\n" + b"x" * 300_000 + b"\nlast\n")
    text, cut = logs.read_stream(stream, limit_bytes=100_000)

    assert cut
    assert text.endswith("last\n")
    assert 100_000 <= len(text) <= 100_000 + 2**16
    assert logs.read_stream(io.BytesIO(b"short"), limit_bytes=100)[1] is False


SERVING = """INFO 11-20 [api_server.py:12] vLLM API server version 0.32.0
INFO:     Application startup complete.
"""
REFUSED = "ERROR 11-20 [serving.py:9] The model `small` does not exist.\n"


def test_an_engine_that_serves_and_refused_a_request_is_told_so_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "engine.log"
    path.write_text(SERVING + REFUSED)

    assert main(["doctor", "--log", str(path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "vllm started and serves; 1 request was refused: model_not_found"
    code, envelope = answer(capsys, "--log", str(path))
    assert (code, envelope["data"]["served"]) == (0, True)
    assert [cause["scope"] for cause in envelope["data"]["causes"]] == ["request"]


def test_the_same_words_of_an_engine_that_did_not_come_up_are_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "engine.log"
    path.write_text(REFUSED)
    code, envelope = answer(capsys, "--log", str(path))

    assert (code, envelope["data"]["served"]) == (5, False)


def test_an_engine_that_serves_and_went_down_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "engine.log"
    path.write_text(f"{SERVING}{ECC}\n")
    code, envelope = answer(capsys, "--log", str(path))

    assert (code, envelope["data"]["served"]) == (5, True)
    assert envelope["data"]["causes"][0]["scope"] == "start"


def test_an_engine_that_serves_is_said_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "engine.log"
    path.write_text(SERVING)

    assert main(["doctor", "--log", str(path)]) == 0
    assert capsys.readouterr().out == "vllm started and serves\n"


@pytest.mark.parametrize(
    ("head", "what", "way_on"),
    [
        (b"\x1f\x8b\x08\x00", "compressed (gzip)", "zcat"),
        (b"\x7fELF\x02\x01\x01", "a program", "path of a log"),
        (b"GGUF\x03\x00", "a model", "path of a log"),
    ],
)
def test_what_is_no_log_is_refused_with_the_way_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], head: bytes, what: str, way_on: str
) -> None:
    path = tmp_path / "engine.log.1"
    path.write_bytes(head + b"invalid argument --flag\n")
    code, said = answer(capsys, "--log", str(path))
    assert (code, said["error"]["code"]) == (2, "usage")
    assert what in said["error"]["message"]
    assert way_on in said["error"]["hint"]
