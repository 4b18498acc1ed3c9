"""A running instance as an agent or a client is told of it."""

from __future__ import annotations

from mscli.frozen import frozen
from mscli.instances.records import Record, api_key, must_run

# Of the context, what a reply may take where the model's makers recommend no limit, or more than that.
_OUTPUT_SHARE = 4


@frozen
class Deployment:
    """`root`: the address without /v1. `key`: None where none is asked for. `context`: of one request, prompt and reply
    together, and `output` of its reply, in tokens; the context is the engine's own word where it gave one.

    `images`: allowed per request. `stand_in`: a scripted test model, whose tokenizer counts about three times as many
    tokens. `gateway`: mscli's own stands in front, which answers what each of them needs.
    """

    name: str
    engine: str
    base_url: str
    root: str
    key: str | None
    model: str
    context: int
    output: int
    abilities: tuple[str, ...]
    images: int
    temperature: float | None
    stand_in: bool
    gateway: bool = False


def deployment_of(record: Record) -> Deployment:
    """What clients need to know. Raises NOT_RUNNING for one that has ended, FILE when its key cannot be read."""
    must_run(record)
    context = (record.taken.context if record.taken else None) or record.plan.context
    longest = record.sampling.max_tokens or context // _OUTPUT_SHARE
    return Deployment(
        name=record.name,
        engine=record.plan.engine,
        base_url=record.base_url,
        root=record.base_url.removesuffix("/v1"),
        key=api_key(record),
        model=record.alias,
        context=context,
        output=min(longest, context // 2),
        abilities=("chat", *record.capabilities),
        images=record.plan.images,
        temperature=record.sampling.temperature,
        stand_in=record.stand_in,
        gateway=record.gateway is not None,
    )
