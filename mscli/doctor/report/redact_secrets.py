"""Secrets taken out of a text by the kind of place in which they stand, whoever wrote them, and out of variables. Pure.

A token's own prefix, a name before a value, a header, a URL, the flag of a program, a key file. The words and prefixes
are in redaction.csv; here is how each kind of place is recognized. Every pattern reads a text of any content in linear
time: what repeats without a bound neither follows nor contains another repeat, and starts only once in a run.
"""

from __future__ import annotations

import base64
import binascii
import csv
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from mscli.doctor.report.redact_prompts import REMOVED

SECRET = "[secret]"
_PEM_MOST = 20_000


def _table() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    with Path(__file__).with_name("redaction.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["kind"], []).append((row["text"], row["more"]))
    return found


_TABLE = _table()


def table_words(kind: str) -> frozenset[str]:
    """What redaction.csv lists of one kind."""
    return frozenset(text for text, _ in _TABLE[kind])


def _one_of(texts: Sequence[str]) -> str:
    return "(?:" + "|".join(sorted(map(re.escape, texts), key=len, reverse=True)) + ")"


def without_secrets(text: str) -> str:
    """`text` without secrets that their place gives away. Done twice, it changes nothing more."""
    text = _without_key_files(text)
    text = _URL.sub(_url, text)
    text = _LOGIN.sub(rf"\g<name>{SECRET}@", text)
    text = _TOKENS.sub(SECRET, text)
    text = _HASH.sub(SECRET, text)
    text = _HEADER.sub(rf"\g<name>{SECRET}", text)
    text = _BEARER.sub(rf"\g<name>{SECRET}", text)
    text = _BASIC.sub(_basic, text)
    text = _COMMAND.sub(_command, text)
    text = _FLAG.sub(_flag, text)
    for pattern in (_NETRC, _PGPASS, _IN_WORDS):
        text = pattern.sub(rf"\g<name>{SECRET}", text)
    return _without_named(text)


# --- key files ---

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{1,40}-----")
_PEM_END = re.compile(r"-----END [A-Z0-9 ]{1,40}-----")
_PEM_BODY = re.compile(r"(?:[A-Za-z0-9+/=]|\s|\\n)*")


def _without_key_files(text: str) -> str:
    """Each block up to its end; one that was cut off as far as its letters go."""
    parts, done = [], 0
    while found := _PEM.search(text, done):
        parts.append(text[done : found.start()])
        end = _PEM_END.search(text, found.end(), found.end() + _PEM_MOST)
        body = end or _PEM_BODY.match(text, found.end(), found.end() + _PEM_MOST)
        done = body.end() if body else found.end()
        parts.append(SECRET)
        if end is None and text[done - 1 : done] == "\n":
            done -= 1
    return "".join(parts) + text[done:]


# --- URLs ---

_TIME = re.compile(r"\?ts=\d{10,13}\\?")  # which hides nothing
_URL = re.compile(r"(?<![\w+.-])(?P<scheme>[A-Za-z][\w+.-]{0,20}://)(?P<rest>[^\s\"'<>]+)")
_HOOK = re.compile(_one_of(sorted(table_words("hook"))))
# app:password@host, as proxies and databases are named; not image:tag@sha256
_LOGIN = re.compile(
    r"(?P<name>(?<![\w.:/@+-])(?:jdbc:oracle:\w{1,8}:)?)[\w.+-]{1,64}[:/](?!\d{1,5}@)[^\s/@:\"'\[\]]{1,128}@(?!sha256)(?=\w)"
)


def _url(found: re.Match[str]) -> str:
    """A URL without its login, without what makes a web hook one's own, and without query and fragment."""
    rest = found["rest"]
    end = next((place for place, char in enumerate(rest) if char in "/?#"), len(rest))
    login, at, host = rest[:end].rpartition("@")
    place, query = host + rest[end:], ""
    if "?" in place and not _TIME.fullmatch(place[place.index("?") :]):
        place, query = place[: place.index("?") + 1], REMOVED
    elif "#" in place and "=" in place[place.index("#") :]:
        place, query = place[: place.index("#") + 1], REMOVED
    if (hook := _HOOK.search(place)) and len(place) > hook.end():
        place, query = place[: hook.end()] + SECRET, ""
    return found["scheme"] + (SECRET + at if login else "") + place + query


# --- what a secret looks like ---

_RANDOM = r"(?=[\w-]{0,60}\d)[\w-]{8,}"
_TOKENS = re.compile(
    r"(?<![\w-])(?:" + "|".join(re.escape(prefix) + (rest or _RANDOM) for prefix, rest in _TABLE["token"]) + ")"
)
_HASH = re.compile(r"\$(?:1|2[abxy]|5|6|7|y|gy|apr1)\$[\w./$=,+-]{8,}")
_HEADER = re.compile(
    rf"(?P<name>(?<![\w-]){_one_of(sorted(table_words('header')))}['\"]?\]?\s{{0,4}}[:=,]\s{{0,4}}(?:b?['\"])?)"
    r"(?!\s|b?['\"]|\[secret\])(?:Digest\b[^\r\n]*|[^\r\n'\"}]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(
    r"(?P<name>\bbearer\s{1,4})(?!tokens?\b|auth\w{0,20}\b|scheme\b|\[secret\])[\w.~+/=-]{4,}", re.IGNORECASE
)
_BASIC = re.compile(r"(?P<name>\bbasic\s{1,4})(?P<value>[\w+/-]{6,}={0,2})", re.IGNORECASE)


def _basic(found: re.Match[str]) -> str:
    """`Basic` and base64 of user:password; not the words `basic authentication`."""
    return f"{found['name']}{SECRET}" if _is_login(found["value"]) else found[0]


def _is_login(value: str) -> bool:
    """True for base64 of user:password."""
    bare = value.rstrip("=")
    try:
        return b":" in base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_")
    except (binascii.Error, ValueError):
        return False


# --- command lines ---

_PROGRAMS = {text: re.compile(rf"(?P<name>(?<!\S){more})(?P<value>[^\s\"']+|\"[^\"\n]*\"?|'[^'\n]*'?)")
             for text, more in _TABLE["program"]}  # fmt: skip
_COMMAND = re.compile(rf"(?<![\w-])(?P<program>{_one_of(list(_PROGRAMS))})(?= )(?:(?!;|&&|\|)[^\n]){{0,4000}}")
_FLAG = re.compile(
    r"(?P<name>(?<![\w-])--?(?P<word>[A-Za-z][\w-]{1,60}))(?P<join>[ =]{1,4}|['\"],\s{0,2}['\"])"
    r"(?![-\[])(?P<value>'[^'\n]*'?|\"[^\"\n]*\"?|[^\s'\"]+)"
)


def _command(found: re.Match[str]) -> str:
    """A command line without the values of the flags by which its program takes a secret."""
    return _PROGRAMS[found["program"]].sub(
        lambda flag: flag[0] if flag["value"].startswith((SECRET, "-")) else f"{flag['name']}{SECRET}", found[0]
    )


def _flag(found: re.Match[str]) -> str:
    """--api-key ..., --ssl-keyfile-password ..., -password ...; not --max-num-batched-tokens, not --api-key-file."""
    words = _split(found["word"])
    named = words[-1:] in (["key"], ["token"]) or _is_secret(words, found["word"], found["value"], "=")
    return f"{found['name']}{found['join']}{SECRET}" if named and _is_value(found["value"]) else found[0]


# --- files and sentences ---

_NETRC = re.compile(r"(?P<name>\b(?:login|user|account)\s{1,4}\S{1,200}\s{1,10}password\s{1,4})(?!\[secret\])\S+")
_PGPASS = re.compile(
    r"(?P<name>^[\w.*-]{1,200}:(?:\d{2,5}|\*):[^:\s]{1,100}:[^:\s]{1,100}:)(?!\[secret\])\S+$", re.MULTILINE
)
_IN_WORDS = re.compile(
    r"(?P<name>\b(?:password|passwd|passphrase|passcode)\s{1,3})"
    r"(?:(?:is|was)\s{1,3}(?=\S{0,200}\d)[^\s\[]\S{3,}|\"[^\"\n]{1,200}\"|'[^'\n]{1,200}')",
    re.IGNORECASE,
)

# --- a name before a value ---

_NAMED = re.compile(r"(?<![\w-])(?P<name>[A-Za-z_][\w-]*)(?P<join>\\{0,8}[\"']?\]?\s{0,4}(?:=>|[:=])\s{0,4})(?=\S)")
_VALUE = re.compile(r"\\{0,8}\"[^\"\n]*\"?|'[^'\n]*'?|\[[^\]\n]*\]?|[^\s\"'}\])]+")
_SPLIT = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PLACES = frozenset(("file", "path", "dir", "name", "id", "type", "count", "limit", "size", "len", "length"))
_SECRETS, _KEYS, _TOKEN_NAMES, _HARMLESS = map(table_words, ("secret", "key", "token_name", "harmless"))


def _without_named(text: str) -> str:
    """HF_TOKEN=..., "api_key": "...", AccountKey=..., password: ...; found by the words of the name."""
    parts, done, start = [], 0, 0
    while found := _NAMED.search(text, start):
        start = found.end()
        value = _VALUE.match(text, start)
        if value and _is_secret(_split(found["name"]), found["name"], value[0], found["join"]) and _is_value(value[0]):
            parts += [text[done:start], SECRET]
            start = done = value.end()
    return "".join(parts) + text[done:]


def _split(name: str) -> list[str]:
    """The words of a name, small, without a plural's s: AccountKey, account_key and ACCOUNT-KEYS are account, key."""
    words = [word.lower() for word in _SPLIT.findall(name)]
    return [word[:-1] if word.endswith("s") and word not in ("pass", "access", "sas") else word for word in words]


def _is_value(value: str) -> bool:
    """False for what says that there is no secret, and for what has been taken out already."""
    bare = value.strip("\\\"'")
    return bool(bare) and not bare.startswith(SECRET) and bare.lower().rstrip(".,;") not in _HARMLESS


def _is_secret(words: Sequence[str], name: str, value: str, join: str) -> bool:
    """Whether a name says that its value is a secret."""
    if not words or words[-1] in _PLACES:
        return False
    last, bare = words[-1], value.strip("\\\"',;.")
    if last in _SECRETS or (last == "data" and "key" in words):
        return True
    if last == "pass":
        return not bare.isdigit() and (len(words) > 1 or "=" in join or value != bare)
    if name.isupper() and {"token", "key", "auth"} & set(words) and ("_" in name or _is_random(bare)):
        return not bare.isdigit()
    if last == "key":
        return bool(_KEYS & set(words[:-1]))
    if last == "token":
        return bool(_TOKEN_NAMES & set(words[:-1])) or (len(words) == 1 and _is_random(bare))
    if last == "auth":
        return len(words) == 1 and len(bare) >= 8 and _is_login(bare)
    return last in ("sig", "signature") and "=" in join and len(bare) >= 10


def _is_random(value: str) -> bool:
    """True for eight characters or more, with letters and digits."""
    bare = re.match(r"[\w.~+/=-]*", value)
    text = bare[0] if bare else ""
    return len(text) >= 8 and any(map(str.isdigit, text)) and any(map(str.isalpha, text))


# --- variables ---

# Variables that bear on engines and downloads, by how their names begin and by name; of most only that they are set is
# told. The values of some cannot be secrets; they pass the same redaction as everything else.
_TELLING, _TELLING_NAMES, _VALUES_SHOWN = map(table_words, ("variables", "variable", "value shown"))


def telling_variables(env: Mapping[str, str]) -> list[str]:
    """Those that matter, by name; of a closed list with their value, of the others only that they are set."""
    names = sorted(name for name in env if name.startswith(tuple(_TELLING)) or name in _TELLING_NAMES)
    return [f"{name}={env[name]}" if name in _VALUES_SHOWN else f"{name} (set)" for name in names]


def before_command(env: Mapping[str, str]) -> list[str]:
    """The variables of a command as they stand before it, values only where they may be shown."""
    return [f"{name}={shlex.quote(value) if name in _VALUES_SHOWN else REMOVED}" for name, value in env.items()]
