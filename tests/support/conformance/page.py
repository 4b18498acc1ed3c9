"""docs/reference/conformance.md: a table of client and ability by engine, and below it the words of all but yes."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "conformance.md"
CLIENTS = ("openai", "anthropic", "langchain-openai", "litellm", "ollama")
GATEWAY = "+gateway"
NAMES = {
    "llama.cpp": "llama.cpp",
    f"llama.cpp{GATEWAY}": "llama.cpp + gateway",
    "ollama": "Ollama",
    "transformers": "Transformers",
    "mistral.rs": "mistral.rs",
    "vllm": "vLLM",
    f"vllm{GATEWAY}": "vLLM + gateway",
    "vllm-docker": "vLLM in Docker",
}
Found = dict[str, str]
_BEGIN, _END = "<!-- made by tests/run_conformance -->\n", "<!-- end -->\n"
_LONGEST = 160


def read(engine: str) -> dict[str, Found]:
    """The engine's column, by client and ability."""
    rows, _ = _parts()
    column: dict[str, Found] = {}
    for (client, ability), cells in rows.items():
        if (cell := cells.get(engine, "–")) != "–":
            column.setdefault(client, {})[ability] = cell
    return column


def write(engine: str, found: dict[str, Found]) -> None:
    """Put what was found into the engine's column."""
    rows, words = _parts()
    words = [line for line in words if not line.startswith(f"- {NAMES[engine]},")]
    for cells in rows.values():
        cells.pop(engine, None)
    for client, abilities in found.items():
        for ability, said in abilities.items():
            verdict, _, why = said.partition(": ")
            rows.setdefault((client, ability), {})[engine] = verdict
            if why:
                words.append(f"- {NAMES[engine]}, {client}, {ability}: {verdict}. {_clean(why)}")
    ordered = sorted(rows, key=lambda row: CLIENTS.index(row[0]))
    head = f"| client | ability | {' | '.join(NAMES.values())} |\n| --- | --- |{' --- |' * len(NAMES)}\n"
    table = "".join(
        f"| {client} | {ability} | {' | '.join(rows[client, ability].get(name, '–') for name in NAMES)} |\n"
        for client, ability in ordered
    )
    told = "".join(f"{line}\n" for line in sorted(words))
    text = PAGE.read_text()
    before, after = text.partition(_BEGIN)[0], text.partition(_END)[2]
    PAGE.write_text(f"{before}{_BEGIN}\n{head}{table}\n{told}\n{_END}{after}")


def _parts() -> tuple[dict[tuple[str, str], dict[str, str]], list[str]]:
    """The table's cells by client, ability and engine; and the lines below it."""
    made = PAGE.read_text().partition(_BEGIN)[2].partition(_END)[0].splitlines()
    rows = {}
    for line in made:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(NAMES) + 2 and cells[0] in CLIENTS:
            rows[cells[0], cells[1]] = dict(zip(NAMES, cells[2:], strict=True))
    return rows, [line for line in made if line.startswith("- ")]


def _clean(words: str) -> str:
    """One line of words, without what differs from run to run."""
    words = re.sub(r"https?://\S+|/tmp/\S+|[0-9a-f]{16,}", "...", " ".join(words.split()))
    words = words.replace("|", "/").replace("<", "").replace(">", "").replace("`", "'")
    return words if len(words) <= _LONGEST else words[: _LONGEST - 3] + "..."
