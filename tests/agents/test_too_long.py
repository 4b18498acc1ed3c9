"""A request longer than the context, by real agents: each ends, and says why. Run by tests/run_agents."""

from __future__ import annotations
