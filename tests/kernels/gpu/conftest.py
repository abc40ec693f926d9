"""Every test here may run its kernels in Triton's interpreter."""

from __future__ import annotations

import pytest

from quick_interpreter import replace_once


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_once(monkeypatch)
