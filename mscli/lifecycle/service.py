"""An instance as a service of the user's systemd: started at boot, and kept running by its companion.

systemd runs `mscli service run NAME`, which starts the instance as it was started before and hands its companion over
as the service's main process: that one tells systemd that it lives, and ends with the instance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.instances.records import Record
from mscli.lifecycle.companion import HOPELESS, notify
from mscli.lifecycle.restarts import hopeless
from mscli.paths import user_units

START_TIMEOUT_S = 1800.0
_ASK_TIMEOUT_S = 60.0
# What of this shell's environment an instance needs at boot. Nothing secret: others may read a unit.
_KEPT = (
    "PATH", "LD_LIBRARY_PATH", "MSCLI_HOME", "MSCLI_VLLM", "MSCLI_TRANSFORMERS", "MSCLI_MISTRALRS",
    "MSCLI_CONTAINER_ENGINE", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "HF_HOME",
    "HF_HUB_CACHE", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES", "OLLAMA_MODELS", "OLLAMA_HOST",
    "PYTHONPATH",
)  # fmt: skip
# What may be otherwise at the next try: after a boot the driver may not be loaded yet.
_PASSING = (Code.NO_GPU, Code.START_FAILED, Code.START_TIMEOUT, Code.PORT_TAKEN, Code.FILE, Code.DISK_FULL)
_UNIT = """\
# Written by `mscli service install {name}`; removed by `mscli service remove {name}`.
[Unit]
Description=mscli instance {name}: {title}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=all
{environment}
ExecStart={program} -m mscli service run {name}
TimeoutStartSec={start_s:.0f}
TimeoutStopSec=120
WatchdogSec=60
KillMode=mixed
Restart=on-failure
RestartSec=30
RestartPreventExitStatus={hopeless}

[Install]
WantedBy=default.target
"""


@frozen
class Service:
    """A service of the user's systemd. `enabled`, `active`: in systemd's own words (enabled, active, failed ...).

    `lingers`: the user's services start at boot, and not at the first login; None where that is not told.
    """

    name: str
    unit: Path
    enabled: str
    active: str
    lingers: bool | None


def unit_of(name: str) -> str:
    """The name of an instance's unit."""
    return f"mscli-{name}.service"


def unit_text(record: Record, env: Mapping[str, str]) -> str:
    """The unit of an instance, for the settings that are in `env` now. Pure."""
    kept = [f"Environment={_quoted(f'{name}={env[name]}')}" for name in _KEPT if env.get(name)]
    return _UNIT.format(
        name=record.name,
        title=record.title.replace("%", "%%"),
        environment="\n".join(kept),
        program=_quoted(sys.executable).replace("$", "$$"),
        start_s=START_TIMEOUT_S + 60,
        hopeless=f"2 {HOPELESS}",
    )


def install(record: Record) -> Service:
    """Write the unit, and have systemd start it now and from now on. Blocks until the instance is ready.

    Raises USAGE where no systemd of the user answers, START_FAILED when the service does not start.
    """
    _ask("show-environment")
    folder = user_units()
    folder.mkdir(parents=True, exist_ok=True)
    unit = folder / unit_of(record.name)
    unit.write_text(unit_text(record, os.environ))
    _ask("daemon-reload")
    _ask("enable", unit.name)
    done = _run("restart", unit.name, timeout_s=START_TIMEOUT_S + 120)
    if done.returncode != 0:
        raise MscliError(
            Code.START_FAILED,
            f"the service {unit.name} did not start: {_last(done.stderr)}",
            f"See why: journalctl --user -u {unit.name} -n 30, and mscli logs {record.name}",
            {"unit": str(unit)},
        )
    return status(record.name)


def remove(name: str) -> Path | None:
    """Stop the service and remove its unit; None where there is none. Raises USAGE as `install` does."""
    unit = user_units() / unit_of(name)
    if not unit.exists():
        return None
    _ask("disable", "--now", unit.name)
    unit.unlink()
    _ask("daemon-reload")
    return unit


def services() -> tuple[Service, ...]:
    """All services that mscli has installed for this user."""
    units = sorted(user_units().glob(unit_of("*")))
    return tuple(status(unit.name.removeprefix("mscli-").removesuffix(".service")) for unit in units)


def status(name: str) -> Service:
    """What systemd says of an instance's service. Raises USAGE where no systemd of the user answers."""
    enabled, active = (_run(asked, unit_of(name)) for asked in ("is-enabled", "is-active"))
    if "bus" in enabled.stderr:
        raise _no_systemd(enabled.stderr)
    return Service(name, user_units() / unit_of(name), enabled.stdout.strip(), active.stdout.strip(), _lingers())


def run(name: str) -> int:
    """Start an instance for systemd, and hand its companion over as the service's main process; the exit status.

    The start is a process of its own: when it has ended, its companion is a child of systemd, which otherwise would not
    wait for it, and could not tell how it ends. Blocks until the instance is ready.
    """
    argv = [sys.executable, "-m", "mscli", "restart", name, "--supervise", "--json"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return done.returncode or 1
    if not said["ok"]:
        sys.stderr.write(f"{said['error']['message']}\n{said['error']['hint']}\n")
        return exit_status(said["error"], done.returncode)
    instance = said["data"]["instance"]
    notify(f"MAINPID={instance['pid']}\nREADY=1\nSTATUS=ready at {instance['base_url']}")
    return 0


def exit_status(error: Mapping[str, Any], told: int) -> int:
    """The exit status for systemd of a start that failed: HOPELESS for what another one would only meet again."""
    lasting = Code(error["code"]) not in _PASSING or hopeless(str(error["details"].get("cause")))
    return HOPELESS if lasting else told


def _quoted(word: str) -> str:
    """A word of a unit file as it is: systemd replaces `%` and `\\`."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _lingers() -> bool | None:
    try:
        done = subprocess.run(
            ["loginctl", "show-user", str(os.getuid()), "--property=Linger"],
            capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() == "Linger=yes" if done.returncode == 0 else None


def _ask(*words: str) -> str:
    done = _run(*words)
    if done.returncode != 0:
        raise _no_systemd(done.stderr)
    return done.stdout


def _run(*words: str, timeout_s: float = _ASK_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["systemctl", "--user", *words], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except OSError as fault:
        raise _no_systemd(f"systemctl: {fault.strerror}") from fault
    except subprocess.TimeoutExpired as fault:
        raise _no_systemd(f"systemctl {words[0]} did not end within {timeout_s:.0f} s") from fault


def _no_systemd(said: str) -> MscliError:
    return MscliError(
        Code.USAGE,
        f"the systemd user manager is not available: {_last(said)}",
        "Without systemd, this keeps an instance running: mscli up --supervise",
    )


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
