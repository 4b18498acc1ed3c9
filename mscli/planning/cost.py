"""What a million output tokens cost on a rented card, beside the maker's API."""

from __future__ import annotations

import re

from mscli.catalog.model import Model
from mscli.errors import Code, MscliError
from mscli.planning.plan import Cost, Plan

HOURS = {"h": 1.0, "hour": 1.0, "d": 24.0, "day": 24.0, "week": 168.0, "month": 730.0}


def price_per_hour(text: str) -> float:
    """US dollars per hour of "1.20/day", "$0.50/h" or "300/month". Raises MscliError(USAGE) for anything else."""
    match = re.fullmatch(r"\s*\$?\s*(\d+(?:\.\d+)?)\s*(?:USD)?\s*/\s*([a-z]+)\s*", text, re.IGNORECASE)
    if not match or match[2].lower() not in HOURS:
        raise MscliError(Code.USAGE, f"cannot read '{text}' as a price", "Write it as 1.20/day or 0.50/hour.")
    return float(match[1]) / HOURS[match[2].lower()]


def cost(plan: Plan, usd_per_hour: float, model: Model) -> Cost | None:
    """US dollars per million output tokens of one stream that never pauses; None where the speed is unknown.

    Several users share the card: divide by the streams that really run at once. `api_usd_per_mtok`: the maker's
    price for output tokens, None where the catalogue has none.
    """
    if plan.speed is None:
        return None
    rate = plan.speed.decode_tok_s[1]
    api = model.price.output_usd_per_mtok if model.price else None
    return Cost(usd_per_hour / (rate * 3600) * 1e6, api)
