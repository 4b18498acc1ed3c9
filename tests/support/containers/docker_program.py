"""A program named docker (or podman) that answers as the real one does, word for word, for one test."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What `docker info --format '{{json .}}'` of 28.2 prints, without what no check reads.
INFO: dict[str, Any] = {
    "ServerVersion": "28.2.2",
    "DockerRootDir": "/var/lib/docker",
    "Runtimes": {"io.containerd.runc.v2": {"path": "runc"}, "runc": {"path": "runc"}},
    "DefaultRuntime": "runc",
    "CgroupDriver": "cgroupfs",
    "CgroupVersion": "2",
    "OperatingSystem": "Ubuntu 24.04.2 LTS",
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
    "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
    "ClientInfo": {"Version": "28.2.2", "Context": "default"},
}
NVIDIA = {"nvidia": {"path": "nvidia-container-runtime"}}
WITHOUT_SERVER = {"ServerVersion": "", "Runtimes": None, "DockerRootDir": "", "ClientInfo": {"Context": "default"}}
ADVICE = "Run 'docker run --help' for more information"


@dataclass(frozen=True)
class Answer:
    """How one subcommand ends. `seconds`: how long it takes."""

    out: str = ""
    err: str = ""
    status: int = 0
    seconds: float = 0.0


@dataclass
class Programs:
    """A folder that is first on PATH. `root`: what stands for /."""

    bin: Path
    root: Path
    answers: dict[str, Answer] = field(default_factory=dict)

    def program(self, name: str, script: str) -> None:
        """An executable of that name."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def docker(self, info: dict[str, Any] | Answer | None = None, name: str = "docker", **answers: Answer) -> None:
        """The client, with its engine's `info` changed and the subcommands that are to answer otherwise."""
        told = {
            "info": info if isinstance(info, Answer) else Answer(json.dumps({**INFO, **(info or {})})),
            "image": Answer("alpine:3.20\nnvidia/cuda:12.4.1-base-ubuntu22.04\n"),
            "ps": Answer(""),
            **answers,
        }
        cases = [f"{word}) {self._played(word, answer)} ;;" for word, answer in told.items()]
        self.program(name, f'echo "$@" >> "{self.bin}/calls"\ncase "$1" in\n{chr(10).join(cases)}\nesac\nexit 9')

    def silent(self, err: str, name: str = "docker") -> None:
        """A client that reaches no engine, and says why."""
        data = json.dumps({**WITHOUT_SERVER, "ServerErrors": [err]})
        self.docker(Answer(data, "", 1), name)

    @property
    def calls(self) -> list[str]:
        """How the client was called."""
        path = self.bin / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def file(self, name: str, text: str = "") -> None:
        """A file below what stands for /."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _played(self, word: str, answer: Answer) -> str:
        (self.bin / f"{word}.out").write_text(answer.out)
        (self.bin / f"{word}.err").write_text(answer.err)
        sleep = f"sleep {answer.seconds};" if answer.seconds else ""
        files = [shlex.quote(str(self.bin / f"{word}.{kind}")) for kind in ("out", "err")]
        return f"{sleep} cat {files[0]}; cat {files[1]} >&2; exit {answer.status}"
