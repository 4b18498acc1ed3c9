"""What is private taken out of a text that is to be shown to others: secrets, names, addresses, prompts.

Two kinds of rules: what is known to be private on this machine (its secrets, users, host) goes wherever it stands, and
what is private by its shape (a token, an address) goes from whomever it came. What support needs stays: paths keep
their tail below the home folder, addresses their port, versions their numbers. `private_here` gathers what is private
on this machine; the rest is pure.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import platform
import pwd
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

from mscli.doctor.report.redact_prompts import without_prompts
from mscli.doctor.report.redact_secrets import SECRET, table_words, without_secrets
from mscli.frozen import frozen
from mscli.paths import Places

USER, HOST, EMAIL, IP, MAC, SERIAL = "[user]", "[host]", "[email]", "[ip]", "[mac]", "[serial]"
PRIVATE_IP = "[private ip]"


@frozen
class Private:
    """What is private here and has no shape of its own: secrets as they are, names of users (and their full names),
    home folders, names of this host."""

    secrets: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


def redacted(text: str, private: Private) -> str:
    """`text` without anything private. Done twice, it changes nothing more."""
    text = _without_known(text, private.secrets)
    text = without_prompts(text)
    text = without_secrets(text)
    text = _EMAIL.sub(EMAIL, text)
    text = _without_homes(text, private.homes)
    text = _without_names(text, private.users, USER)
    text = _without_names(text, private.hosts, HOST)
    return _without_addresses(text)


# --- secrets that are known ---

_PLACEHOLDERS = ("secret", "user", "host", "email", "serial", "removed", "private")
_SHORTEST = 4
_ANYWHERE = 8


def _without_known(text: str, secrets: Iterable[str]) -> str:
    """Each secret as it is, and as JSON, URLs and base64 write it. Short ones only where they stand alone."""
    written = {form for secret in secrets for form in _forms(secret)}
    for form in sorted(written, key=len, reverse=True):
        if len(form) >= _ANYWHERE:
            text = text.replace(form, SECRET)
        elif len(form) >= _SHORTEST:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])", SECRET, text)
    return text


def _forms(secret: str) -> Iterator[str]:
    for line in {secret, *secret.splitlines()}:
        if (bare := line.strip()) and bare.casefold() not in _PLACEHOLDERS:
            yield bare
            yield json.dumps(bare)[1:-1]
            yield json.dumps(bare, ensure_ascii=False)[1:-1]
            yield quote(bare, safe="")
            yield quote_plus(bare)
            if len(bare) >= _ANYWHERE:
                yield base64.b64encode(bare.encode()).decode().rstrip("=")


# --- names ---

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?![\w-])")
_HOMES = re.compile(
    r"(?:(?<![\w.~])(?:/(?:var|export|nfs|net|mnt|data|storage))?/home/[^/\s:;,\"'\]\[)(<>|]+|(?<![\w.~])/(?:mnt/[a-z]/)?Users/[^/\s:;,\"'\]\[)(<>|]+"
    r"|(?<![\w.~-])/root(?![\w.-])|\b[A-Za-z]:(?:\\+|/)Users(?:\\+|/)[^\\/\s:;,\"'\]\[)(<>|]+)"
)
# Names that are also words of this program's and its engines' own: they only go where a name must stand.
_PLAIN = table_words("plain name")
_SHORT_NAME = 3


def _without_homes(text: str, homes: Iterable[str]) -> str:
    for home in sorted({each.rstrip("/") for each in homes}, key=len, reverse=True):
        if home.count("/") >= 1 and len(home) > 1:
            text = re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w.-])", "~", text)
    return _HOMES.sub("~", text)


def _without_names(text: str, names: Iterable[str], put: str) -> str:
    folded = text.casefold()  # of thousands of users, hardly one is in the text
    present = {name for each in names if (name := each.strip()) and name.casefold() in folded}
    for name in sorted(present, key=len, reverse=True):
        escaped = re.escape(name)
        if name.casefold() in _PLAIN or len(name) < _SHORT_NAME or name.isdigit():
            text = _where_a_name_stands(text, escaped, put)
        else:
            text = re.sub(rf"(?<![A-Za-z0-9]){escaped}(?![A-Za-z0-9])", put, text, flags=re.IGNORECASE)
    return text


def _where_a_name_stands(text: str, escaped: str, put: str) -> str:
    if put == USER:
        text = re.sub(rf"(?<![\w.-]){escaped}(?=@[\w\[])", put, text)
        return re.sub(
            rf"(\b(?:user(?:name)?|login|owner)\s*[=:]\s*[\"']?|\buid=\d+\(){escaped}(?![\w-])", rf"\1{put}", text
        )
    text = re.sub(rf"(?<=@){escaped}(?![\w-])", put, text)
    return re.sub(rf"(\bhost(?:name)?\s*[=:]\s*[\"']?|://){escaped}(?![\w.-])", rf"\1{put}", text)


# --- addresses and numbers of devices ---

_UUID = re.compile(
    r"(?P<kind>\b(?:GPU-|MIG-GPU-|MIG-)?)(?<![0-9a-f])(?P<first>[0-9a-f]{4})[0-9a-f]{4}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"(?![0-9a-f])",
    re.IGNORECASE,
)
_HARDWARE = re.compile(r"(?<![\w:-])(?:[0-9A-Fa-f]{2}([:-]))(?:[0-9A-Fa-f]{2}\1){4,6}[0-9A-Fa-f]{2}(?![\w:-])")
_SERIAL = re.compile(
    r"(?P<name>\bserial(?:[ _-]?(?:number|num|no))?\.?\s*[\"']?\s*[:=]\s*[\"']?)(?=[\w-]*\d)[\w-]{4,}", re.IGNORECASE
)
_IPV4 = re.compile(r"(?<![\w.])(?P<ip>\d{1,3}(?:\.\d{1,3}){3})(?P<port>:\d+|/\d+)?(?!\w|\.\d)")
_IPV6 = re.compile(
    r"(?<![\w:.])(?P<ip>[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\d{1,3}(?:\.\d{1,3}){3})?)(?:%\w+)?(?![\w:.]\w|\w)"
)
_DASHED = re.compile(r"\bip-\d{1,3}(?:-\d{1,3}){3}\b")
# Behind these, four numbers are a version: nvidia-cudnn-cu12==9.1.0.70, cuDNN 9.1.0.70
_VERSION_BEFORE = re.compile(
    r"(?:[=<>~!]=\s*|\b(?:version|release|driver|cudnn|cublas|cufft|curand|cusolver|cusparse|nccl|tensorrt|toolkit)"
    r"[\"')]?[\s:=(\"']{0,4}|cu\d+[\s:=@\"'|-]{1,30}|nvidia[_-]\w+[\s|-]{1,30})$",
    re.IGNORECASE,
)


def _without_addresses(text: str) -> str:
    text = _UUID.sub(r"\g<kind>\g<first>...", text)
    text = _HARDWARE.sub(MAC, text)
    text = _SERIAL.sub(rf"\g<name>{SERIAL}", text)
    text = _DASHED.sub(IP, text)
    text = _IPV4.sub(_ipv4, text)
    return _IPV6.sub(lambda found: _address(found["ip"], found[0], ""), text)


def _ipv4(found: re.Match[str]) -> str:
    before = found.string[max(0, found.start() - 60) : found.start()]
    if found["port"] is None and _VERSION_BEFORE.search(before):
        return found[0]
    return _address(found["ip"], found[0], found["port"] or "")


def _address(written: str, whole: str, port: str) -> str:
    """Which kind of address it was; loopback, and `any address`, tell nothing about anybody and stay."""
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return whole
    if address.is_loopback or address.is_unspecified or written.startswith("255."):
        return whole
    return (PRIVATE_IP if address.is_private or address.is_link_local else IP) + port


_SECRET_NAMES = re.compile(r"TOKEN|KEY|SECRET|PASSW|PASSPHRASE|CREDENTIAL|AUTH", re.IGNORECASE)
# Values of such variables that are settings rather than secrets: switches, words, numbers of tokens.
_SETTINGS = re.compile(r"(?i)true|false|yes|no|on|off|none|null|auto|default|enabled|disabled|\d{1,6}")
_USER_VARIABLES = ("USER", "LOGNAME", "USERNAME", "SUDO_USER")
_HOST_VARIABLES = ("HOSTNAME", "HOST", "COMPUTERNAME", "NAME")
_HOME_VARIABLES = ("HOME", "USERPROFILE")
_LARGEST_BYTES = 64 * 2**10


def private_here(
    places: Places, env: Mapping[str, str], root: Path = Path("/"), settings: Iterable[tuple[str, str]] = ()
) -> Private:
    """What must not be shown of this user and machine. Reads the environment, key files and names of home folders.

    `settings`: further names with values, as profiles and records hold them.
    """
    return Private(
        secrets=tuple(dict.fromkeys((*_secrets((*env.items(), *settings)), *_of_files(places, env)))),
        users=tuple(dict.fromkeys(_users(env, root))),
        homes=tuple(dict.fromkeys(_homes(env))),
        hosts=tuple(dict.fromkeys(_hosts(env, root))),
    )


def _secrets(settings: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in settings:
        if _SECRET_NAMES.search(name) and value.strip() and not _is_setting(name, value):
            yield value


def _is_setting(name: str, value: str) -> bool:
    """True for a switch or a number; a path (SSH_AUTH_SOCK, KEY_FILE) is hidden as paths are."""
    if Path(value).is_absolute():
        return True
    return bool(_SETTINGS.fullmatch(value)) and ("TOKENS" in name.upper() or not value.isdigit() or len(value) < 4)


def _of_files(places: Places, env: Mapping[str, str]) -> Iterator[str]:
    """The keys of all our instances, and what the Hugging Face tools have stored."""
    home = Path(env.get("HOME") or Path.home())
    hub = Path(env.get("HF_HOME") or home / ".cache" / "huggingface")
    files = [Path(env.get("HF_TOKEN_PATH") or hub / "token"), hub / "stored_tokens"]
    if places.instances.is_dir():
        files += sorted(places.instances.glob("*/key"))
    for path in files:
        text = _text(path)
        yield from (line.partition("=")[2].strip() or line.strip() for line in text.splitlines() if line.strip())
        if text.strip():
            yield text.strip()


def _users(env: Mapping[str, str], root: Path) -> Iterator[str]:
    try:
        entry = pwd.getpwuid(os.getuid())
        yield entry.pw_name
        full_name = entry.pw_gecos.split(",")[0].strip()
        if " " in full_name:
            yield full_name
    except KeyError:  # a container's user without an entry
        pass
    yield from (env[name] for name in _USER_VARIABLES if env.get(name))
    yield from (Path(env[name]).name for name in _HOME_VARIABLES if env.get(name))
    for folder in (root / "home", root / "Users"):
        if folder.is_dir():
            yield from sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _homes(env: Mapping[str, str]) -> Iterator[str]:
    yield from (env[name] for name in _HOME_VARIABLES if env.get(name))
    try:
        yield pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return


def _hosts(env: Mapping[str, str], root: Path) -> Iterator[str]:
    """This host's names, whole and without their domain. The network is not asked."""
    names = [
        platform.node(),
        _text(root / "etc" / "hostname").strip(),
        *(env.get(name, "") for name in _HOST_VARIABLES),
    ]
    for name in names:
        if name and re.fullmatch(r"[\w.-]+", name):
            yield name
            yield name.partition(".")[0]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            return handle.read(_LARGEST_BYTES).decode(errors="replace")
    except OSError:
        return ""
