"""Text from outside, checked where it enters: names that become paths, and JSON."""

from __future__ import annotations

import json
from typing import Any

# Nobody's honest JSON is deeper, and no number in it longer: 2**64 has 20 digits.
_LONGEST_NUMBER = 400


def stays_below(name: str) -> bool:
    """Whether a name from outside (a hub, an archive, a record) is a relative path that stays below the folder to which
    it is joined: no root, no "..", no empty part, no NUL. Links on the disk are another matter."""
    return "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def parse_json(text: bytes | str) -> Any:
    """JSON from outside. Raises ValueError also for what is nested too deep for Python, and for endless numbers."""
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def error_words(said: str, most: int | None = None) -> str:
    """A server's own words of an error: in OpenAI's, Ollama's or mistral.rs's JSON, or as the text itself, then `most`
    characters of it."""
    try:
        return words_in(parse_json(said))
    except ValueError:
        return said.strip()[:most]


def words_in(data: Any) -> str:
    """The words of an error, whatever shape they have."""
    fault = data.get("error", data) if isinstance(data, dict) else data
    return str(fault.get("message", fault)) if isinstance(fault, dict) else str(fault)
