"""Python environments on disk as vLLM's packages leave them, without the packages."""

from __future__ import annotations

from pathlib import Path


def environment(
    folder: Path, *distributions: str, shebang: str | None = None, packages: str = "lib/python3.12/site-packages"
) -> Path:
    """An environment in `folder` that holds `distributions` ("vllm-0.32.0"); returns its vllm program."""
    python = folder / "bin" / "python3"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    for distribution in distributions:
        (folder / packages / f"{distribution}.dist-info").mkdir(parents=True)
    program = folder / "bin" / "vllm"
    program.write_text(f"{shebang or f'#!{python}'}\nraise SystemExit('not to be started')\n")
    program.chmod(0o755)
    return program
