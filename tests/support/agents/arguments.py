"""With what real agents are asked one question, without a terminal."""

from __future__ import annotations

# Who reads its instructions from a file that a variable names.
INSTRUCTED = {"qwen": "QWEN_SYSTEM_MD"}


def arguments(prompt: str) -> dict[str, tuple[str, ...]]:
    """By the agent's name; those that each test asks in its own way are not here."""
    return {
        "vibe": ("-p", prompt, "--max-turns", "3", "--trust"),
        "opencode": ("run", prompt),
        "codex": ("exec", "--skip-git-repo-check", prompt),
        "pi": ("-p", prompt),
        # With all its tools, and its own instructions (see INSTRUCTED), its prompt has 46,548 tokens by the tiny
        # model's tokenizer: minutes to read where two cores have other work.
        "qwen": ("-p", prompt, "--yolo", "--core-tools", "read_file"),
        "continue": ("-p", prompt, "--exclude", "Exit"),
        "aider": ("--message", prompt, "--yes-always", "--no-pretty", "--no-git"),
    }
