"""How causes of failure are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mscli.cli.screen import Screen

if TYPE_CHECKING:
    from mscli.diagnosis.diagnose import RankedCause

FOUND = 0.5  # from here on a cause counts as found, and the command's exit code says so
_SURE = 0.85

_EMPTY = "It is empty. Start the engine again and keep what it prints, standard error too."
_NEXT = (
    "What to do next: give the whole log from the start of the engine on, not only its last lines; with Ollama run the "
    "server with OLLAMA_DEBUG=1, with vLLM VLLM_LOGGING_LEVEL=DEBUG, with several GPUs NCCL_DEBUG=INFO; and look at "
    "the kernel's log: sudo dmesg | tail -50"
)


def as_json(finding: RankedCause) -> dict[str, object]:
    """One cause for scripts."""
    return {
        "code": finding.code,
        "confidence": finding.confidence,
        "evidence": list(finding.evidence),
        "summary": finding.summary,
        "remedy": finding.remedy,
    }


def show_causes(screen: Screen, found: Sequence[RankedCause], empty: bool) -> None:
    """Causes, evidence and remedies as text; or that there is none, and what to do next. `empty`: no text."""
    if not found:
        screen.text("Cause unknown: no line of this log shows a cause that mscli knows.")
        screen.text(_EMPTY if empty else _NEXT)
        return
    for number, finding in enumerate(found, 1):
        screen.text(f"{number}. {finding.code} ({_how_sure(finding.confidence)}): {finding.summary}")
        for line in finding.evidence:
            screen.text(f"   | {line}")
        screen.text(f"   {finding.remedy}")


def _how_sure(confidence: float) -> str:
    words = "almost sure" if confidence >= _SURE else "likely" if confidence >= FOUND else "possible"
    return f"{words}, {confidence:.0%}"
