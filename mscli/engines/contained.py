"""What is recorded of a container that an engine runs in.

A module of its own: whoever reads a record needs it, and the contract of the engines takes long to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mscli.frozen import frozen


@frozen
class Contained:
    """The container in which an engine runs; the process that mscli spawns is only its client.

    `client`: how the client is called; `env`: what tells it which container engine to speak to, remembered because
    `mscli down` may be typed in another shell. `name`: the container's; `cidfile`: where the client writes its id.
    """

    client: tuple[str, ...]
    env: Mapping[str, str]
    name: str
    cidfile: Path
    image: str
