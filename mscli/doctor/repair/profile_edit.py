"""Changes to one line of a YAML file that leave everything else, comments too, as it was written.

Each function returns the new text, or None where the line does not show one place, and one only, to change.
"""

from __future__ import annotations

import re


def rename_key(text: str, line: int, old: str, new: str) -> str | None:
    """`text` with the key `old` on `line` (from 1) called `new`."""
    pattern = rf"(?P<before>(?:^|[\s{{,])(?P<quote>['\"]?)){re.escape(old)}(?P<after>(?P=quote)\s*:(?:\s|$))"
    return _on_line(text, line, pattern, new)


def set_value(text: str, line: int, key: str, value: int) -> str | None:
    """`text` with the number that `key` on `line` (from 1) holds set to `value`."""
    pattern = (
        rf"(?P<before>(?:^|[\s{{,])(?P<quote>['\"]?){re.escape(key)}(?P=quote)\s*:\s+)[0-9][0-9_]*(?P<after>[\s,}}]|$)"
    )
    return _on_line(text, line, pattern, str(value))


def _on_line(text: str, line: int, pattern: str, put: str) -> str | None:
    lines = text.split("\n")  # YAML's own lines, as long as no other line end is in use; a carriage return stays
    if not 1 <= line <= len(lines):
        return None
    body, hash_, comment = _comment(lines[line - 1])
    found = list(re.finditer(pattern, body))
    if len(found) != 1:
        return None
    start, end = found[0].end("before"), found[0].start("after")
    lines[line - 1] = body[:start] + put + body[end:] + hash_ + comment
    return "\n".join(lines)


def _comment(line: str) -> tuple[str, str, str]:
    """The line's part before a comment, and the comment. A # inside quotes counts as one: then nothing is changed
    where it should be, and the change is refused."""
    found = re.search(r"(?:^|\s)#", line)
    return (
        (line, "", "")
        if found is None
        else (line[: found.start()], line[found.start() : found.end()], line[found.end() :])
    )
