"""Phrases that no native engineer would write, and what to say instead: for messages, help, screens and pages alike."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A regular expression (a blank stands for any white space, so that a line break hides nothing) -> the better wording.
PHRASES = {
    r"\bunasked\b": "on its own, by default; never ...",
    r"\bsame wishes\b|\bits wishes\b": "with the same options",
    r"\b(?:free )?memory ends it\b": "limited by free GPU memory",
    r"\bmisses [\d.,]+ [KMGT]i?B\b|\d [KMGT]i?B missing\b": "3.0 GiB short",
    r"\d [KMGT]i?B of them usable\b": "23.5 GiB free (22.8 usable)",
    r"\bwould do if (?:it|they|that) were empty\b": "would fit if GPU 0 were idle",
    r"\bx others [\d.]": "other processes 0.48",
    r"\bit was asked for by name\b": "selected small-q4 (requested)",
    r"\btokens of one stream\b": "at batch size 1",
    r"\bthis copy does not tell\b|\bthe driver (?:does not tell|tells)\b": "unknown until it starts",
    r"\bfetching is off\b": "not downloaded",
    r"\bis not known: |\bor of the proxy before it\b": "cannot resolve huggingface.co (or the proxy)",
    r"\bon the disk still serves\b": "cached weights still work",
    r"\bfiles can still be made\b": "16,333,146 inodes free",
    r"\bkilled nothing for memory\b": "no out-of-memory kills in the kernel log",
    r"\bsettings are as they seem\b": "no HF_* overrides",
    r"\bno token is kept\b": "no saved Hugging Face token",
    r"\bclosed to others\b": "private (0700/0600)",
    r"\b1 (?:records|instances|processes|files|requests|tokens|GPUs|images|users|seconds|minutes)\b": "1 record",
    r"\w\(s\)(?!\w)": "the singular or the plural that it is",
    r"\bno engine's program hides another\b": "no conflicting engine binaries on PATH",
    r"\bneither the bus nor the driver\b": "no NVSwitch",
    r"\bdriver tells of no\b": "one GPU: no peer check",
    r"\b[Pp]ut(?:s|ting)? right\b": "fix, apply safe fixes",
    r"\bis to be put right\b": "nothing to fix",
    r"\bfor a helper\b|\ba helper needs\b": "a redacted support report",
    r"\bnothing of it was alive\b": "already dead; record removed",
    r"\bruns already\b": "is already running",
    r"\basking again in\b": "retrying in 0.5 s",
    r"\b[Gg]o(?:ing|es)? on (?:after|until)\b": "resuming at 0.75 MiB; follow the log",
    r"\b[Bb]egins? anew\b": "start over",
    r"\bwrites no thoughts\b": "no reasoning output from this model",
    r"\bunknown user: unknown command\b": "PID 5004242 (another container or user)",
    r"\bno revisions to move to\b": "Ollama tag: nothing to update",
    r"\b[Ww]eights of this catalogue\b": "known weights",
    r"; else (?:the best fit|a free one)\b": "(default: best fit)",
    r"\b[Rr]esumed by byte\b|\b[Cc]arried by disk\b": "resumable; copied for offline machines",
    r"\b[Ww]hat of it was shown where\b": "how each engine was tested",
    r"\bNo GPU was at hand\b": "not yet tested on a physical GPU",
    r"(?<!there) is no (?:profile|number|text|regular|plain|HTTP|Python|JSON|GGUF|duration|whole|report)\b": "is not a",
    r"\b[Ll]eave \S+ away\b": "leave out",
    r"\bthose that are there\b|\bThose there are\b|\bone that is there\b": "To list them: ...; an installed one",
    r"\bwere both given\b": "cannot be used together",
    r"\b[Ii]ts makers\b|\b[Tt]he makers'": "Mistral recommends; its authors",
    r"\b[Ll]et it name\b|\blet [A-Z_]+ name\b": "set it to",
    r"\bgoes on (?:starting|from|running)\b": "is still starting; resumes; keeps running",
    r"\banew\b": "again; reinstall; recreate",
    r"\bsigns? of life\b": "stopped responding",
    r"\bnot let go of\b": "did not unload",
    r"\bknowingly\b": "only by name; slow",
    r"\b[Mm]ake room\b": "free disk space",
    r"\ball the same\b": "anyway",
    r"\b[Gg]ive it longer\b": "allow more time",
    r"\bmay not (?:talk|speak) to\b": "has no permission to use",
    r"\bimage tower\b": "vision encoder",
    r"\b[Aa]sk for (?:less|at most)\b": "use a smaller --ctx; use at most",
    r"\bmend\b": "fix",
    r"\b(?:may|can) not (?:read|use|write)\b": "has no permission to read",
    r"\bshows? (?:the engine|the server) (?:none|no)\b": "exposes no GPU to the engine",
    r", \S+ (?:is|are|were) (?:planned|free)\b(?! and)": "instead of the planned 4,096; 3 GiB is free",
    r"\b(?:is|was|were) expected, not\b": "expected a list, not",
    r"\bat the moment\b": "for now; try again later",
    r"\b(?:pid|Pid) \{": "PID",
    r"\bwhat is piped in\b": "piped input",
    r"\bthe hub is offline\b": "offline mode is on",
    r"\bto whoever\b|\bthe one who\b": "anyone who; whoever",
    r"\b(?:is|was|are) taken back\b": "removed; undone",
    r"\bof the driver's release\b|\bfrom another release\b": "that matches the driver's version",
    r"\bfor good:": "to prevent it",
    r"\bthe [Gg]uides'|\b[Tt]he guides (?:say|promise|publish)\b": "Common guides'; guides say",
    r"\bquantis|\butilis|\blicence\b|\bcatalogue\b": "American spelling",
}
_PATTERNS = {re.compile(phrase.replace(" ", r"\s+")): better for phrase, better in PHRASES.items()}


def phrases_in(text: str) -> Iterator[tuple[int, str, str]]:
    """Each phrase that stands in the text: the line it is on, the phrase as found, and what to say instead."""
    for pattern, better in _PATTERNS.items():
        for found in pattern.finditer(text):
            yield text.count("\n", 0, found.start()) + 1, found[0], better
