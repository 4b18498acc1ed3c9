"""How surely a sign shows its cause, and the short way in which the doctor's tables are written."""

from __future__ import annotations

from mscli.diagnosis.signature import Sign

# How often the cause is the one named, where the sign is seen: the line states it itself; its mechanism has hardly
# another cause; it mostly has this one; it fits this one among others; it is a trace worth showing beside another.
STATED, STRONG, LIKELY, HINT, TRACE = 0.95, 0.85, 0.7, 0.5, 0.3


def sign(code: str, strength: float, *wordings: str, beside: str = "", unless: str = "") -> Sign:
    """One sign of `code` in several wordings. Every blank in a wording also matches a line break."""
    return Sign(code, "|".join(wordings), beside=beside, strength=strength, unless=unless)


_ERROR = r"\b(?:err(?:or)?|failure|failed|returned|code|status|context)\W{0,4}(?:code\W{0,3})?"
_ENDS = r"(?!\d|[.:]\d)"


def cuda(number: int) -> str:
    """The wordings in which CUDA, its wrappers and the engines print an error by its number."""
    return rf"\b(?:cuda\w*|cu[A-Z]\w+|nvcuda|cudart)\b.{{0,60}}?{_ERROR}{number}{_ENDS}"


def nvml(number: int) -> str:
    """The wordings in which engines print an error of NVML by its number."""
    return rf"\bnvml\w*\b.{{0,40}}?{_ERROR}{number}{_ENDS}"
