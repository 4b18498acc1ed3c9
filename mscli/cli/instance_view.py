"""How an instance is shown: the JSON that scripts rely on, and a row for people."""

from __future__ import annotations

import time
from typing import Any

from mscli.cli.size import ago, iso
from mscli.instances.state import Instance


def instance_json(instance: Instance) -> dict[str, Any]:
    """The fields of `mscli status --json`."""
    return {
        "name": instance.name,
        "profile": instance.profile,
        "engine": instance.engine,
        "state": instance.state,
        "pid": instance.pid,
        "owner": instance.owner,
        "port": instance.port,
        "base_url": instance.base_url,
        "model": instance.model,
        "context": instance.context,
        "gpus": list(instance.gpus),
        "since": iso(instance.since),
        "log": str(instance.log),
        "stand_in": instance.stand_in,
        "orphans": list(instance.orphans),
        "container": instance.container,
        "orphaned": instance.orphaned,
    }


COLUMNS = ("NAME", "STATE", "PROFILE", "ENGINE", "GPUS", "CONTEXT", "PID", "SINCE", "URL")


def instance_row(instance: Instance) -> tuple[str, ...]:
    """One row of `mscli status`, by COLUMNS."""
    return (
        instance.name,
        instance.state,
        instance.profile,
        instance.engine,
        ",".join(map(str, instance.gpus)) or "cpu",
        str(instance.context),
        "not ours" if instance.pid is None else str(instance.pid),
        ago(time.time() - instance.since),
        instance.base_url,
    )
