"""`python -m mscli` is the same program as the console script."""

import sys

from mscli.cli.main import main

sys.exit(main())
