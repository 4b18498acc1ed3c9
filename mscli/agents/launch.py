"""What an agent is started with so that it talks to an instance and to nothing else.

Its own configuration is read by it as ever, and never touched: what it is told comes by environment, flags, or a file
in the instance's folder, made anew at each launch, since ports and names move. What the last `mscli check --for agents`
of an instance found is kept there too: it counts for the start that was checked, since with another engine, template or
context all may be different.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from mscli.agents.shapes import LOST, REFUSED, SHAPES
from mscli.agents.table import AGENT_CONTEXT, CHAT, MESSAGES, RESPONSES, Agent, Deployment
from mscli.catalog.model import STAND_IN_COUNTS
from mscli.chat.selftest import Check
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.instances.json_values import load_lines, to_json
from mscli.instances.records import Record, Records
from mscli.instances.store import private_folder, write_private

# What an engine answers besides chat completions, in a way that agents can use. The instructions in every request to
# /v1/responses have the role `developer`: vLLM refuses it, and templates of Ollama's library leave it out in silence.
_VLLM = ("vllm", "vllm-docker")
_ANSWERS = {"llama.cpp": (RESPONSES, MESSAGES), "ollama": (MESSAGES,), **dict.fromkeys(_VLLM, (MESSAGES,))}
_GATEWAY_ANSWERS = (RESPONSES, MESSAGES)
# The shapes that an engine refuses by itself, as docs/reference/agent-requests.md has them.
REFUSES: Mapping[str, tuple[str, ...]] = dict.fromkeys(
    _VLLM, ("two developer messages", "system after assistant", "/v1/responses")
)


@frozen
class Launch:
    """A start of an agent. `env`: what is added to the user's environment, `unset` what is taken from it.

    `files`: what was written below the instance's folder, by path; they and `env` may hold the key, `argv` never does.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    unset: tuple[str, ...]
    files: Mapping[Path, str]

    def write(self) -> None:
        """Write the files, mode 0600, in folders of mode 0700. Raises FILE or DISK_FULL."""
        for path, text in self.files.items():
            private_folder(path.parent)
            write_private(path, text)


def launch(
    agent: Agent, deployment: Deployment, folder: Path, args: Sequence[str] = (), no_proxy: str | None = None
) -> Launch:
    """The start of `agent` on `deployment`, with the user's own `args` behind; its files go to `folder`. Pure.

    `no_proxy`: what the user's environment exempts from its proxy; this machine is added.
    """
    given = values(deployment, folder)
    exempt = ",".join(filter(None, (no_proxy, "127.0.0.1,localhost,::1")))
    small = agent.when_small if deployment.context < AGENT_CONTEXT else {}
    env = {**agent.env, **small, "NO_PROXY": exempt, "no_proxy": exempt}
    return Launch(
        (agent.program, *(_filled(word, given) for word in agent.argv), *args),
        {name: _filled(text, given).replace("\n", "") for name, text in env.items()},
        agent.unset,
        {folder / name: _filled(text, given) for name, text in agent.files.items()},
    )


def values(deployment: Deployment, folder: Path) -> dict[str, str]:
    """What the texts of the table may name."""
    key = deployment.key or "EMPTY"  # clients insist on some key
    words = {
        "base": deployment.base_url,
        "root": deployment.root,
        "model": deployment.model,
        "served": f"mscli/{deployment.model}",
        "key": key,
        "folder": str(folder),
    }
    images = bool(deployment.images)
    said: dict[str, object] = {
        **{f"q_{name}": word for name, word in words.items()},
        "context": deployment.context,
        "output": deployment.output,
        "temperature": deployment.temperature or 0.0,
        "images": images,
        "tools": "tools" in deployment.abilities,
        "input": ["text", "image"] if images else ["text"],
    }
    return words | {name: json.dumps(value) for name, value in said.items()}


def _filled(text: str, given: Mapping[str, str]) -> str:
    return Template(text).substitute(given)


def needed_context(agent: Agent, deployment: Deployment) -> int:
    """The tokens without which the agent cannot work here."""
    return agent.least_context * (STAND_IN_COUNTS if deployment.stand_in else 1)


def refuse_unfit(agent: Agent, deployment: Deployment) -> None:
    """Raise ENGINE_UNSUPPORTED where the agent cannot work on this engine and model, whatever the context."""
    answered = _GATEWAY_ANSWERS if deployment.gateway else _ANSWERS.get(deployment.engine, ())
    if agent.speaks != CHAT and agent.speaks not in answered:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"{agent.title} speaks {agent.speaks}, which {deployment.engine} does not answer as it needs",
            "Start the instance with --gateway (a container cannot), or use an agent that uses chat completions.",
        )
    if agent.needs_tools and "tools" not in deployment.abilities:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"{agent.title} needs tool calls, which {deployment.model} on {deployment.engine} does not have",
            "To see what an instance can do: mscli check",
        )


@frozen
class Checked:
    """`mark`: of the start that was checked. `statuses`: what became of each shape, by its name."""

    mark: str
    statuses: Mapping[str, str]


def keep(record: Record, records: Records, checks: Sequence[Check]) -> None:
    """Keep what was found, unless the instance has been started anew meanwhile. Raises FILE or DISK_FULL."""
    found = Checked(record.mark, {check.name: check.status for check in checks})
    with records.still(record) as now:
        if now is not None:
            private_folder(_path(record, records).parent)
            write_private(_path(record, records), json.dumps(to_json(found)) + "\n")


def last(record: Record, records: Records) -> Checked | None:
    """What the last check of this start found; None where it was not checked."""
    kept = load_lines(_path(record, records), Checked)
    return kept[-1] if kept and kept[-1].mark == record.mark else None


def warnings(agent: Agent, deployment: Deployment, checked: Checked | None) -> tuple[str, ...]:
    """What to say before `agent` is started: shapes that lost their tools, and refusals of those that it sends.

    An instance that was not checked since its start is taken for what its engine was seen to be.
    """
    refuses = () if deployment.gateway else REFUSES.get(deployment.engine, ())
    statuses = checked.statuses if checked else dict.fromkeys(refuses, REFUSED)
    found = "the last check for agents found refused" if checked else f"{deployment.engine} without --gateway refuses"
    lost = [f"{shape.name} (sent by {shape.sent_by})" for shape in SHAPES if statuses.get(shape.name) == LOST]
    refused = [
        shape.name
        for shape in SHAPES
        if statuses.get(shape.name) == REFUSED and any(name in agent.title for name in shape.sent_by.split(", "))
    ]
    said = (
        (lost, "the last check for agents lost the tool call, or the answer, of"),
        (refused, f"{found} what {agent.title} sends:"),
    )
    return tuple(f"{words} {', '.join(names)}" for names, words in said if names)


def _path(record: Record, records: Records) -> Path:
    return records.run_dir(record.name) / "agents" / "check.json"
