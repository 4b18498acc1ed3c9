"""What vLLM says it took, read off its log."""

from __future__ import annotations

import re

from mscli.engines.engine import Observed

GIB = 2**30

# Older versions wrote "GB" for 2**30 bytes. Each worker has a line of its own.
_WEIGHTS = re.compile(r"(?:Model loading|Loading model weights) took ([\d.]+) Gi?B")
# On GPUs, and on the CPU. Each worker has a line of its own.
_KV_MEMORY = re.compile(r"Available KV cache memory: ([\d.]+) GiB|Explicitly set \(([\d.]+)/[\d.]+\) GiB for KV cache")
_KV_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
_CONCURRENCY = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
_CONTEXTS = (
    _CONCURRENCY,
    re.compile(r"Using max model len (\d+)"),
    re.compile(r"\bmax_seq_len=(\d+)"),
)


def observed(log: str) -> Observed:
    """Memory and context as the log states them, added up over the workers; two decimals of a GiB is all it tells.

    The CPU build does not tell what the weights take.
    """
    concurrency = _CONCURRENCY.search(log)
    tokens = _KV_TOKENS.search(log)
    return Observed(
        context=_context(log),
        weights_bytes=_sum(_WEIGHTS, log),
        kv_bytes=_sum(_KV_MEMORY, log),
        kv_tokens=_number(tokens[1]) if tokens else None,
        max_concurrency=float(concurrency[2]) if concurrency else None,
    )


def _context(log: str) -> int | None:
    found = (pattern.search(log) for pattern in _CONTEXTS)
    return next((_number(match[1]) for match in found if match), None)


def _sum(pattern: re.Pattern[str], log: str) -> int | None:
    """What the workers state, together; None where none states it."""
    sizes = [float(next(group for group in match.groups() if group)) for match in pattern.finditer(log)]
    return round(sum(sizes) * GIB) if sizes else None


def _number(text: str) -> int:
    return int(text.replace(",", ""))
