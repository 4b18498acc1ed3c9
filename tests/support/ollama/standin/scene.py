"""What the stand-in has to play: versions, the registry's models, and faults, in a JSON file read at every request.

{"version": "0.32.15", "client_version": "0.32.15", "bytes_per_s": 0, "gpu_share": 1.0, "load_bytes": 20000000000,
 "load_s": 0, "token_s": 0, "lacks": ["context_length", "/api/status"],
 "registry": {"mistral:q4": {"layers": [65536, 1000], "capabilities": ["completion"]}},
 "faults": [{"on": "pull", "kind": "stall", "after": 1000}]}

`lacks`: fields and paths that an older version does not have (`tags.capabilities`: of /api/tags alone; `from`: of
create). Faults are used up one by one by the requests they are
for; one with "always": true stays.
kinds, on pull: stall (it goes on reporting, nothing grows; with `again_s` the part begins at 0 again after so long, as
the real one's does after 31 s), cut (the connection breaks), corrupt (the registry sends
other bytes), error (`text` in the stream). On chat: the process that holds the model dies `after` so many events, with
`log` as its last words. On pull, load, create, tags and delete: status (HTTP `status` with `text`).
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

DEFAULTS: dict[str, Any] = {
    "version": "0.32.15",
    "client_version": "0.32.15",
    "bytes_per_s": 0,
    "gpu_share": 1.0,
    "load_bytes": 20_000_000_000,
    "load_s": 0,
    "token_s": 0,
    "lacks": [],
    "registry": {},
    "faults": [],
}


class Scene:
    """The file, read anew at each look."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._used: set[str] = set()
        self._lock = threading.Lock()

    def __getitem__(self, key: str) -> Any:
        told = json.loads(self._path.read_text()) if self._path else {}
        return {**DEFAULTS, **told}[key]

    def fault(self, on: str) -> dict[str, Any] | None:
        """The next fault for this kind of request, None if there is none left."""
        with self._lock:
            for number, fault in enumerate(self["faults"]):
                name = f"{number} {fault}"
                if fault["on"] == on and name not in self._used:
                    if not fault.get("always"):
                        self._used.add(name)
                    return dict(fault)
        return None
