"""The last OpenAI SDK of version 2: many libraries still pin it. Its checks are those of 3."""

from __future__ import annotations

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[1] / "openai3/check.py"), run_name="__main__")
