"""What can go wrong, as a closed list: every error a user sees has a code, a message, a hint and an exit code.

Scripts rely on `code` and on the exit code; people read `message` and `hint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum


class Exit(IntEnum):
    """Exit codes of every mscli command (documented in the README)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NO_FIT = 4
    FINDINGS = 5
    INTERRUPTED = 130


class Code(str, Enum):
    """The closed list of error codes of the JSON envelope."""

    USAGE = "usage"
    PROFILE_UNKNOWN = "profile_unknown"
    PROFILE_INVALID = "profile_invalid"
    NO_GPU = "no_gpu"
    NO_FIT = "no_fit"
    NOT_RUNNING = "not_running"
    INSTANCE_EXISTS = "instance_exists"
    RECORD_UNREADABLE = "record_unreadable"
    PORT_TAKEN = "port_taken"
    ENGINE_MISSING = "engine_missing"
    ENGINE_UNSUPPORTED = "engine_unsupported"
    AGENT_MISSING = "agent_missing"
    WEIGHTS_MISSING = "weights_missing"
    DOWNLOAD_FAILED = "download_failed"
    DISK_FULL = "disk_full"
    START_FAILED = "start_failed"
    START_TIMEOUT = "start_timeout"
    STOP_FAILED = "stop_failed"
    REQUEST_FAILED = "request_failed"
    FILE = "file"
    CONFIRMATION_NEEDED = "confirmation_needed"
    INTERRUPTED = "interrupted"
    INTERNAL = "internal"


_EXITS = {
    Code.USAGE: Exit.USAGE,
    Code.PROFILE_UNKNOWN: Exit.USAGE,
    Code.NO_GPU: Exit.NO_FIT,
    Code.NO_FIT: Exit.NO_FIT,
    Code.NOT_RUNNING: Exit.NOT_RUNNING,
    Code.INTERRUPTED: Exit.INTERRUPTED,
}


class MscliError(Exception):
    """A fault of the user's or the machine's, worded for the user.

    `message` says what happened and what was seen, `hint` what to type next.
    `details` holds plain JSON values for scripts (a port's owner, missing bytes, a cause code).
    """

    def __init__(self, code: Code, message: str, hint: str = "", details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details: dict[str, object] = dict(details or {})

    @property
    def exit_code(self) -> Exit:
        """The process exit code that belongs to this error's code."""
        return _EXITS.get(self.code, Exit.FAILED)
