"""`python -m nos_search` is nos-search."""

import sys

from .cli import main

sys.exit(main())
