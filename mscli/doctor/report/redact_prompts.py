"""What users wrote and what models answered, taken out of an engine's log. Pure.

Engines write requests in many ways: JSON, JSON inside a quoted string, Python's repr, Go's key="value", single tokens.
So it is not the whole line that is recognised, but the name that stands before what was written, and the quotes or
brackets in which it stands. Where their end cannot be found, the rest of the line goes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

REMOVED = "[removed]"

# Words that mean what a user or a model wrote wherever they stand, and those that do so only as the key of a value.
_PLAIN = (
    *("prompt", "prompts", "prompt_text", "negative_prompt", "messages", "content", "contents", "completion"),
    *("reasoning_content", "thinking", "generated_text", "prompt_token_ids", "output_token_ids", "token_ids", "images"),
)
_KEYS = (
    *("input", "inputs", "text", "system", "system_prompt", "suffix", "query", "instruction", "instructions"),
    *("reasoning", "arguments", "tools", "functions", "documents", "image_url", "input_audio", "outputs"),
)


def _one_of(*words: str) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_KEY = r"(?<![\w\\])(?P<esc>\\*)(?P<quote>[\"']){}(?P=esc)(?P=quote)\s*:\s*"
_VALUE = r"(?=\\*[\"'\[{{])"
_STARTS = (
    # "messages": ..., also as it looks inside another string, or as Python writes it
    re.compile(_KEY.format(_one_of(*_PLAIN, *_KEYS))),
    # an answer may also be an error, as an object
    re.compile(_KEY.format("response") + r"(?=\\*[\"'])"),
    # ChatRequest(messages=[...]), prompt="..." of Go
    re.compile(r"(?<![\w.\"'-])" + _one_of(*_PLAIN, *_KEYS, "output") + "=" + _VALUE.format()),
    re.compile(r"(?<![\w.\"'-])response=(?=\\*[\"'])"),
    # prompt: '...' of vLLM
    re.compile(r"(?<![\w.\"'-])" + _one_of(*_PLAIN, "output") + r":\s+" + _VALUE.format()),
    # what Pydantic refuses, unless it is one short word
    re.compile(r"\binput_value=(?=[\"'\[{])(?!'[\w.+-]{1,24}'|\"[\w.+-]{1,24}\")"),
)
_WORD = re.compile(r"(?<![\w.\"'-])(?:prompt|content|messages)=(?!\\*[\"'\[{(])(?![\d.]+\b|None\b|true\b|false\b)\S+")
# llama.cpp's `prompt: ...` without quotes, and whatever lines such a prompt goes on in
_FORMATTED = re.compile(r"(?P<name>\b(?:formatted )?prompt: +)(?!\\*[\"'\[{]|\[removed\])\S.*")
_TOKEN = re.compile(r"(?P<name>\b(?:next|prompt|sampled|accepted|draft) token\b[^'\"\n]{0,40}?\d\s+)['\"].*")
_DATA_URL = re.compile(r"(data:[\w/+.-]{0,60};base64,)[A-Za-z0-9+/=_-]+")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{200,}={0,2}")
# How lines of logs begin: with a time, a level, a field or a part of llama.cpp.
_LOG_LINE = re.compile(
    r"\s{0,40}(?:\[?\d{1,4}[-:/.]\d|\[GIN\]|time=|\(\w{1,80} pid=|(?:INFO|WARNING|WARN|ERROR|DEBUG|CRITICAL)\b"
    r"|(?:srv|slot|que|main|cmn|res|common|llama|ggml|load)\w{0,40}[ :]"
    r"|Traceback|File \"|```|\w{1,80}(?:Error|Exception)\b)"
)
# What may follow the end of a value that was written down: the next key, a closing bracket, the end.
_AFTER = re.compile(
    r"\s{0,40}(?:[}\])>]|,\s{0,40}(?:\\{0,64}[\"'{\[]|\\n|\w{1,64}[=:]|$)|$|\\n|\\{0,64}[\"']\s{0,40}$)"
    r"|\s{1,40}\w{1,64}=",
    re.MULTILINE,
)
_SIMPLE = re.compile(r"\\{0,64}[\"'\[{(]")
_CONTINUES = frozenset(" \t\r\n]}[{\"'")  # how a line begins that goes on with a list or object
_MOST = 200_000


def without_prompts(text: str) -> str:
    """`text` without prompts, replies, tool definitions and images. Done twice, it changes nothing more."""
    for pattern in _STARTS:
        text = _cut_values(text, pattern)
    text = _WORD.sub(lambda found: found[0].partition("=")[0] + "=" + REMOVED, text)
    text = _TOKEN.sub(rf"\g<name>{REMOVED}", text)
    text = _cut_formatted(text)
    text = _DATA_URL.sub(rf"\1{REMOVED}", text)
    return _BASE64.sub(_base64, text)


def _cut_values(text: str, pattern: re.Pattern[str]) -> str:
    """Cut the value behind each match of `pattern`, and continue after it.

    Lists that nothing closes may each be read to a far end in vain: of all together at most four times the text, so
    that it takes linear time. Then only the rest of their line goes.
    """
    parts: list[str] = []
    done, left = 0, 4 * len(text) + _MOST
    while found := pattern.search(text, done):
        parts.append(text[done : found.end()])
        done, put, read = _value(text, found.end(), min(left, _MOST))
        left -= read
        parts.append(put)
    return "".join(parts) + text[done:]


def _value(text: str, start: int, most: int) -> tuple[int, str, int]:
    """(where the value that starts there ends, what stands in its place, how many characters were read in vain).

    Plain numbers and words stay. `most`: how far a list or object is read at most.
    """
    opening = _SIMPLE.match(text, start)
    if opening is None:
        return start, "", 0
    if opening[0][-1] in "\"'":
        end, read, put = _string_end(text, opening.end(), opening[0]), 0, f"{opening[0]}{REMOVED}{opening[0]}"
    else:
        end, read = _bracket_end(text, opening.end(), most)
        put = REMOVED
    return (_line_end(text, start) if end is None else end), put, read


def _string_end(text: str, start: int, opening: str) -> int | None:
    """The end of a string that `opening` began (a quote, behind as many backslashes as it is nested deep).

    A quote inside it has more backslashes; where a log has lost them, it is told by what follows it.
    """
    place, last = start, _line_end(text, start)
    while (place := text.find(opening[-1], place, last)) >= 0:
        place += 1
        if _closes(text, place - 1, len(opening) - 1) and _AFTER.match(text, place):
            return place
    return None


def _closes(text: str, place: int, depth: int) -> bool:
    """True if the quote at `place` ends a string at this depth of escaping (0, 1, 3, 7 ... backslashes).

    Two backslashes before a plain quote end a string that ends in a backslash, but inside Python's repr of JSON they
    escape the quote: the string is taken to go on, since too much removed is the lesser fault.
    """
    count = 0
    while place - count > 0 and text[place - count - 1] == "\\":
        count += 1
    return count % max(4, 2 * (depth + 1)) == depth


def _bracket_end(text: str, start: int, most: int) -> tuple[int | None, int]:
    """The end of a list or object whose first bracket is behind us, None where there is none within `most` characters;
    and how many were read in vain. Brackets inside strings do not count."""
    open_, place, limit = 1, start, min(len(text), start + most)
    while place < limit:
        char = text[place]
        if char in "\"'" and not _apostrophe(text, place):
            quote = _quote_at(text, place)
            end = _plain_string_end(text, place + 1, quote, min(limit, _line_end(text, place)))
            if end is None:
                break
            place = end
            continue
        if char == "\n" and text[place + 1 : place + 2] not in _CONTINUES:
            break  # the log goes on, or was cut here
        open_ += (char in "[{(") - (char in "]})")
        place += 1
        if open_ == 0:
            return place, 0
    return None, place - start


def _plain_string_end(text: str, start: int, opening: str, limit: int) -> int | None:
    place = start
    while (place := text.find(opening[-1], place, limit)) >= 0:
        place += 1
        if _closes(text, place - 1, len(opening) - 1):
            return place
    return None


def _quote_at(text: str, place: int) -> str:
    first = place
    while first > 0 and text[first - 1] == "\\":
        first -= 1
    return text[first : place + 1]


def _apostrophe(text: str, place: int) -> bool:
    """True for the ' of a word (don't), which begins no string."""
    return text[place] == "'" and place > 0 and text[place - 1].isalnum()


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _cut_formatted(text: str) -> str:
    """Cut prompts without quotes to the end of their line, and what follows that does not begin as a log's lines do."""
    kept: list[str] = []
    inside = False
    for line in text.split("\n"):
        if inside and not _LOG_LINE.match(line):
            continue
        found = _FORMATTED.search(line)
        inside = found is not None
        kept.append(line if found is None else line[: found.start()] + found["name"] + REMOVED)
    return "\n".join(kept)


def _base64(found: re.Match[str]) -> str:
    """An image or other bytes; a long path has slashes too often to be one."""
    run = found[0]
    kinds: tuple[Callable[[str], bool], ...] = (str.isupper, str.islower, str.isdigit)
    mixed = all(any(kind(char) for char in run) for kind in kinds)
    return REMOVED if mixed and run.count("/") < len(run) / 20 else run
