"""No tracked file holds a secret: a token or key in a shape that its issuer gives to real ones."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE_UP = "tests/doctor/report/secret_shapes.tsv"
# As the issuers document them.
SHAPES = {
    "Hugging Face": r"\bhf_[A-Za-z]{34}\b",
    "OpenAI": r"\bsk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{40,}\b",
    "Anthropic": r"\bsk-ant-[a-z0-9]+-[A-Za-z0-9_-]{60,}",
    "GitHub": r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{82}\b",
    "GitLab": r"\bglpat-[A-Za-z0-9_-]{20}\b",
    "AWS": r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b",
    "Google": r"\bAIza[A-Za-z0-9_-]{35}\b",
    "Slack": r"\bxox[abeoprs]-\d{9,}-[A-Za-z0-9-]{20,}",
    "npm": r"\bnpm_[A-Za-z0-9]{36}\b",
    "PyPI": r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}",
    "NVIDIA": r"\bnvapi-[A-Za-z0-9_-]{60,}",
    "JSON web token": r"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{30,}",
    "private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----(?:\s|\\n)*[A-Za-z0-9+/=\\n\s]{200,}",
}
PATTERNS = {issuer: re.compile(shape.encode()) for issuer, shape in SHAPES.items()}


def secrets_in(files: Iterator[Path]) -> list[str]:
    """What looks like a secret, by file and line; never the secret itself."""
    found = []
    for path in files:
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for issuer, pattern in PATTERNS.items():
            for match in pattern.finditer(content):
                if len(set(match[0])) > 12:  # more than a made-up repetition
                    line = content.count(b"\n", 0, match.start()) + 1
                    found.append(f"{path}:{line}: {issuer}")
    return found


def tracked() -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("no checkout of git")
    yield from (ROOT / name for name in listed.stdout.decode().split("\0") if name not in ("", MADE_UP))


def test_no_tracked_file_holds_a_secret() -> None:
    assert secrets_in(tracked()) == []


PLANTED = {
    "Hugging Face": "hf_" + "qWeRtYuIoPaSdFgHjKlZxCvBnMqWeRtYuI",
    "OpenAI": "sk-proj-" + "Qx7" * 4 + "ZpLmNoKjIhGfEdCbA9876543210_-abcdef",
    "Anthropic": "sk-ant-" + "api03-" + "Qx7ZpLmNoKjIhGfEdCbA98765" * 3,
    "GitHub": "ghp_" + "Qx7ZpLmNoKjIhGfEdCbA9876543210abcdef",
    "GitLab": "glpat-" + "Qx7ZpLmNoKjIhGfEdCbA",
    "AWS": "AKIA" + "Q2WERTYUIOPASDFG",
    "Google": "AIza" + "Qx7ZpLmNoKjIhGfEdCbA9876543210abcde",
    "Slack": "xoxb-" + "123456789012-" + "Qx7ZpLmNoKjIhGfEdCbA9876",
    "npm": "npm_" + "Qx7ZpLmNoKjIhGfEdCbA9876543210abcdef",
    "PyPI": "pypi-" + "AgEIcHlwaS5vcmc" + "Qx7ZpLmNoKjIhGfEdCbA98765" * 2,
    "NVIDIA": "nvapi-" + "Qx7ZpLmNoKjIhGfEdCbA98765" * 3,
    "JSON web token": "eyJ" + "hbGciOiJIUzI1NiIsIn.e" + "yJzdWIiOiIxMjM0NTY3ODkw." + "Qx7ZpLmNoKjIhGfEdCbA9876543210",
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "Qx7ZpLmNoKjIhGfEdCbA9876543210abcdef\n" * 8,
}  # fmt: skip


@pytest.mark.parametrize("issuer", SHAPES)
def test_one_that_is_planted_is_found(issuer: str, tmp_path: Path) -> None:
    file = tmp_path / "config.py"
    file.write_text(f"# a comment\nKEY = '{PLANTED[issuer]}'\n")
    assert f"{file}:2: {issuer}" in secrets_in(iter([file]))
