"""`python -m reid` is `reid`."""

import sys

from reid.cli import main

sys.exit(main())
