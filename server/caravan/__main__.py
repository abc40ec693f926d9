"""`python -m caravan`: the same as the command `caravan`."""

from __future__ import annotations

import sys

from caravan.cli import main

sys.exit(main())
