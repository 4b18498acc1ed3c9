"""Text from outside, checked where it enters: names that become paths, JSON, and what a terminal would obey."""

from __future__ import annotations

import json
import re
from typing import Any

# Nobody's honest JSON is deeper, and no number in it longer: 2**64 has 20 digits.
_LONGEST_NUMBER = 400


def clean(text: str) -> str:
    """The text without control sequences: what a model, a log or another program wrote never steers the terminal."""
    if text.isprintable():
        return text  # most text, without the 2 ms that the pattern takes once
    # Escape sequences (OSC, CSI, strings, others, as a terminal reads them), other control characters but tab and line
    # end, marks that turn the direction of writing, and lone surrogates, which no stream can encode.
    return re.sub(
        r"\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|\x1b[PX^_][^\x1b\n]*(?:\x1b\\)?"
        r"|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]",
        "",
        text,
    )


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
