"""What the checks share: the machine as it was seen once, and where they may look."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mscli.inventory.detect import detect
from mscli.inventory.inventory import Inventory
from mscli.paths import Places, hub_cache

if TYPE_CHECKING:
    from mscli.catalog.load import Catalog
    from mscli.instances.records import Record
    from mscli.lifecycle.decision import Chosen

T = TypeVar("T")


@dataclass(frozen=True)
class CheckContext:
    """One visit of the doctor. `root` stands for / wherever a check reads files of the kernel or the system; programs
    are found on `env`'s PATH. `chosen`: the profile asked about, None for the machine alone. `asked`: the areas that
    were named one by one.

    What several checks need is looked at once, by whichever comes first, and the others wait for it.
    """

    places: Places
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    root: Path = Path("/")
    chosen: Chosen | None = None
    asked: frozenset[str] = frozenset()
    _known: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False, repr=False)
    _locks: dict[tuple[str, str], threading.Lock] = field(default_factory=dict, compare=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def thorough(self, area: str) -> bool:
        """Whether checks of `area` may take their time: it was asked for by name, or a profile was."""
        return self.chosen is not None or area in self.asked

    def once(self, what: str, look: Callable[[], T], of: str | None = None) -> T:
        """What `look` returns, called the first time that its module asks for `what`.

        A word means the same within one module only, so that none is given what another one has found. `of`: the module
        for which this answers, where it is not that of `look`.
        """
        key = (of or look.__module__, what)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._known:
                self._known[key] = look()
            known: T = self._known[key]
            return known

    @property
    def inventory(self) -> Inventory:
        """GPUs through NVML, and the host."""
        return self.once("inventory", lambda: detect(hub_cache(self.env), self.env, self.root))

    @property
    def catalog(self) -> Catalog:
        """Every profile and model that loads. Raises MscliError where a folder or the pins cannot be read."""
        from mscli.lifecycle.pinned import catalogue

        return self.once("catalog", lambda: catalogue(self.places))

    @property
    def records(self) -> tuple[Record, ...]:
        """Our own instances that can be read."""
        from mscli.instances.records import Records

        return self.once("records", lambda: Records(self.places).all()[0])
