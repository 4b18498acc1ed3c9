"""The parsers of several vLLMs, asked about many command lines in one go: importing one takes 8 s, asking it 0.1 s."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# vLLM's own command, again and again, with a server that does nothing.
_CHILD = """
import contextlib, io, json, sys
import vllm.version
from vllm.entrypoints.cli import main, serve

serve.ServeSubcommand.cmd = staticmethod(lambda args: None)
refused = {}
for name, words in json.load(sys.stdin).items():
    sys.argv = ["vllm", "serve", *words]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            main.main()
    except SystemExit as ended:
        if ended.code:
            refused[name] = said.getvalue()[-600:]
    except Exception as fault:
        refused[name] = repr(fault)
print("answer: " + json.dumps({"version": vllm.version.__version__, "refused": refused}))
"""


@dataclass(frozen=True)
class Parser:
    """A vLLM of which only the parser is used. `sources`: an older or newer one's, on the packages of `python`'s."""

    version: str
    python: Path
    sources: Path | None

    def refuses(self, lines: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Which of the command lines (after `vllm serve`) it refuses, with its words."""
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        if self.sources:
            assert (self.sources / "complete").exists(), "tests/run_engines vllm installs it"
            env["PYTHONPATH"] = str(self.sources)
        asked = [str(self.python), "-c", _CHILD]
        done = subprocess.run(
            asked, input=json.dumps(lines), env=env, capture_output=True, text=True, timeout=300, check=False
        )
        answer = next((line for line in done.stdout.splitlines() if line.startswith("answer: ")), None)
        assert answer is not None, done.stderr[-3000:]
        told = json.loads(answer.removeprefix("answer: "))
        assert told["version"].partition("+")[0] == self.version, "another vLLM was asked"
        return dict(told["refused"])
