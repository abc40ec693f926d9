"""Lets pytest import the benchmarks, which import each other as scripts do: by their own folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
