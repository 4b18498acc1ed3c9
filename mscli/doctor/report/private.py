"""What is private on this machine, gathered so that it can be taken out of what is shown to others.

And which environment variables matter to whoever helps, and whose values may be shown.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mscli.doctor.report.redact import Private
from mscli.doctor.report.redact_secrets import table_words
from mscli.paths import Places

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


# Variables that bear on engines and downloads, by how their names begin and by name; of most only that they are set is
# told. The values of some cannot be secrets; they pass the same redaction as everything else.
_TELLING, _TELLING_NAMES, _VALUES_SHOWN = map(table_words, ("variables", "variable", "value shown"))


def telling(env: Mapping[str, str]) -> list[str]:
    """Those that matter, by name; of a closed list with their value, of the others only that they are set."""
    names = sorted(name for name in env if name.startswith(tuple(_TELLING)) or name in _TELLING_NAMES)
    return [f"{name}={env[name]}" if name in _VALUES_SHOWN else f"{name} (set)" for name in names]


def before_command(env: Mapping[str, str]) -> list[str]:
    """The variables of a command as they stand before it, values only where they may be shown."""
    return [f"{name}={shlex.quote(value) if name in _VALUES_SHOWN else '[removed]'}" for name, value in env.items()]
