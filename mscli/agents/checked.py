"""What the last `mscli check --for agents` of an instance found, kept in its folder for `mscli launch`.

It counts for the start that was checked: with another engine, template or context all may be different.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mscli.agents.deployment import Deployment
from mscli.agents.shapes import LOST, REFUSED, SHAPES
from mscli.agents.table import Agent
from mscli.chat.selftest import Check
from mscli.frozen import frozen
from mscli.instances.json_values import load_lines, to_json
from mscli.instances.records import Record, Records
from mscli.instances.store import private_folder, write_private

# The shapes that an engine refuses by itself, as docs/reference/agent-requests.md has them.
REFUSES: Mapping[str, tuple[str, ...]] = dict.fromkeys(
    ("vllm", "vllm-docker"), ("two developer messages", "system after assistant", "/v1/responses")
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
