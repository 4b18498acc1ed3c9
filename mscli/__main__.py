"""`python -m mscli` is the same program as the console script."""

from mscli.cli.main import run

run()
