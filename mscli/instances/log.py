"""An instance's log: what was added to it since the last look."""

from __future__ import annotations

from pathlib import Path


class LogTail:
    """The lines that were added to a log file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def lines(self) -> list[str]:
        """New whole lines; an unfinished last line is kept for the next look."""
        try:
            with self._path.open("rb") as handle:
                handle.seek(self._offset)
                fresh = handle.read()
        except FileNotFoundError:
            return []
        self._offset += len(fresh)
        *whole, self._rest = (self._rest + fresh).split(b"\n")
        return [line.decode(errors="replace") for line in whole]
