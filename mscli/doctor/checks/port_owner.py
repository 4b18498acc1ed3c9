"""Who listens on a port: the process, the service it belongs to, or the container behind Docker's proxy."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mscli.doctor.checks.context import CheckContext, user_name
from mscli.instances.process import describe
from mscli.inventory.kernel import text_of
from mscli.inventory.ports import addresses, owner, owner_uid

_UNIT = re.compile(r"/([^/]+\.service)(?:/|$)")
_PROXY_PORT = re.compile(rb"docker-proxy.*-host-port\0(\d+)", re.DOTALL)
_DOCKER_S = 1.0


@dataclass(frozen=True)
class PortOwner:
    """Whoever listens on a port. None: not visible to this user."""

    pid: int | None
    command: str | None
    user: str | None
    unit: str | None
    container: str | None

    @property
    def words(self) -> str:
        """For people: container, service or command."""
        if self.container:
            return f"container {self.container}"
        who = self.command or f"a process of {self.user or 'another user'}"
        return f"{self.unit}, {who}" if self.unit else who

    @property
    def stop(self) -> str | None:
        """What ends it, where that is sure."""
        if self.container:
            return f"docker stop {self.container}"
        if self.unit and not self.unit.startswith("user@"):
            return f"sudo systemctl stop {self.unit}"
        return f"kill {self.pid}" if self.pid and self.pid > 1 else None


def port_owner(ctx: CheckContext, port: int) -> PortOwner:
    """Who listens on `port`. Asks Docker, for at most a second, where its proxy does."""
    pid, uid = owner(port), owner_uid(port)
    proxy = _proxy(port)
    return PortOwner(
        pid=pid,
        command=describe(pid) if pid else None,
        user=(user_name(uid) or f"UID {uid}") if uid is not None else None,
        unit=_unit(ctx.root, pid) if pid else None,
        container=_container(ctx, port) if proxy else None,
    )


def where(port: int) -> str:
    """The addresses that are listened on, in words."""
    return ", ".join(f"{f'[{each}]' if ':' in each else each}:{port}" for each in addresses(port))


def _unit(root: Path, pid: int) -> str | None:
    lines = text_of(root / f"proc/{pid}/cgroup").splitlines()
    found = [name for line in lines for name in _UNIT.findall(line)]
    return found[-1] if found else None


def _proxy(port: int) -> bool:
    """Whether a proxy of Docker's serves the port; command lines are open to every user, its sockets are not."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                line = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if (found := _PROXY_PORT.search(line)) and int(found[1]) == port:
                return True
    return False


def _container(ctx: CheckContext, port: int) -> str:
    ran = ctx.run(
        "docker", "ps", "--filter", f"publish={port}", "--format", "{{.Names}} ({{.Image}})", timeout_s=_DOCKER_S
    )
    return ran.out.strip() if ran and ran.status == 0 and ran.out.strip() else "(behind docker-proxy)"
