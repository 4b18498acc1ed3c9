"""A start that failed, with what its remedy depends on; and what was changed after it."""

from __future__ import annotations

from dataclasses import dataclass

from mscli.errors import MscliError
from mscli.lifecycle.decision import Decision


class StartFailure(MscliError):
    """The error of a failed start, beside it what was to be started and all that the engine logged.

    `log` is "" where the engine did not say anything, or wrote no log of ours.
    """

    decision: Decision
    log: str

    @classmethod
    def of(cls, fault: MscliError, decision: Decision, log: str) -> StartFailure:
        """The same error, with what belongs to it."""
        failure = cls(fault.code, fault.message, fault.hint, fault.details)
        failure.decision, failure.log = decision, log
        return failure


@dataclass(frozen=True)
class Heal:
    """One change after a try that failed. `cause`: a code of the closed list; `change` and `why` in words."""

    cause: str
    change: str
    why: str
