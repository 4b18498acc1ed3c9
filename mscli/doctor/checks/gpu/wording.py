"""Several devices told in one line, those alike together."""

from __future__ import annotations

from collections.abc import Iterable


def together(told: Iterable[tuple[int, str]], what: str = "GPU") -> str:
    """`GPU 0-7: 9.0` for what is the same of each, `GPU 0: 8.6; GPU 1: 8.9` for what is not."""
    by_text: dict[str, list[int]] = {}
    for index, text in sorted(told):
        by_text.setdefault(text, []).append(index)
    return "; ".join(f"{what} {_ranges(indices)}: {text}" for text, indices in by_text.items())


def _ranges(indices: list[int]) -> str:
    """0, 1, 2, 5 as `0-2, 5`."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
