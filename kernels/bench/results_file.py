"""A result is written with what made it: command, date, versions, machine."""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path

import torch


def write_results(path: Path | None, **facts: object) -> None:
    """Writes JSON; None: nothing is written."""
    if path is None:
        return
    made_by = {
        "command": sys.argv,
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }
    path.write_text(json.dumps({**made_by, **facts}, indent=2) + "\n")
