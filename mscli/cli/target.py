"""Where a chat or a check asks, from an instance's record."""

from __future__ import annotations

from dataclasses import replace

from mscli.catalog.model import Sampling
from mscli.chat.reply import Target
from mscli.errors import Code, MscliError
from mscli.instances.process import alive
from mscli.instances.records import Record, api_key


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
    context = record.plan.context
    sampling = _within(record.sampling, context)
    return Target(
        record.name, record.base_url, api_key(record), record.alias, sampling, splits, record.system_prompt, context
    )


def _within(sampling: Sampling, context: int) -> Sampling:
    """vLLM refuses a request whose prompt and longest reply exceed the context together, and Magistral's makers
    recommend 40,960 tokens for the one and for the other. Where such a limit leaves little to the prompt it is not
    sent: the context ends the reply all the same."""
    too_much = sampling.max_tokens is not None and 2 * sampling.max_tokens > context
    return replace(sampling, max_tokens=None) if too_much else sampling
