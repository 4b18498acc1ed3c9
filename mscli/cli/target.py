"""Where a chat or a check asks, from an instance's record."""

from __future__ import annotations

from mscli.chat.reply import Target
from mscli.lifecycle.records import Record, api_key


def target_of(record: Record) -> Target:
    """The instance as a client sees it. Raises FILE when its key cannot be read."""
    splits = record.reasoning == "think-text"
    return Target(
        record.name, record.base_url, api_key(record), record.alias, record.sampling, splits, record.system_prompt
    )
