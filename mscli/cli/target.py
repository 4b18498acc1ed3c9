"""Where a chat or a check asks, from an instance's record."""

from __future__ import annotations

from mscli.chat.reply import Target
from mscli.errors import Code, MscliError
from mscli.lifecycle.process import alive
from mscli.lifecycle.records import Record, api_key


def target_of(record: Record) -> Target:
    """The instance as a client sees it. Raises NOT_RUNNING for one that has died or was stopped: its port may be
    somebody else's by now. Raises FILE when its key cannot be read."""
    if record.stopped_at is not None or (record.identity and not alive(record.identity)):
        raise MscliError(
            Code.NOT_RUNNING,
            f"{record.name} does not run any more",
            f"What it said last: mscli logs {record.name} -n 30. Start it again: mscli restart {record.name}",
        )
    splits = record.reasoning == "think-text"
    return Target(
        record.name, record.base_url, api_key(record), record.alias, record.sampling, splits, record.system_prompt
    )
