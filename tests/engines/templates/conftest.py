"""The reference, mistral_common 1.13, is there for Python 3.11 and later."""

from __future__ import annotations

import sys

collect_ignore = ["test_templates.py", "test_strict_messages.py"] if sys.version_info < (3, 11) else []
