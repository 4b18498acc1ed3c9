"""What tests share: stand-ins for the far side of real boundaries, described machines, tiny models, homes of a user."""

from pathlib import Path

SUPPORT = Path(__file__).parent  # for the programs below it, which tests start by their path
