"""Tiny models of Mistral's kind with scripted replies, for tests that run real engines and download nothing.

The weights are random but for a planted path: the engine tokenises, attends and samples as it always does, and what it
says is known beforehand. See `script.py` for what that is and `weights.py` for how it comes about.
"""
