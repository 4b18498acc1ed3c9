"""With what real agents are asked one question, without a terminal."""

from __future__ import annotations


def arguments(prompt: str) -> dict[str, tuple[str, ...]]:
    """By the agent's name; those that each test asks in its own way are not here."""
    return {
        "vibe": ("-p", prompt, "--max-turns", "3", "--trust"),
        "opencode": ("run", prompt),
        "codex": ("exec", "--skip-git-repo-check", prompt),
        "pi": ("-p", prompt),
        "qwen": ("-p", prompt, "--yolo"),
        "continue": ("-p", prompt, "--exclude", "Exit"),
        "aider": ("--message", prompt, "--yes-always", "--no-pretty", "--no-git"),
    }
