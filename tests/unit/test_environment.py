"""What the engine process sets before it imports torch and numba."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from caravan.worker import environment


def test_compiled_kernels_go_to_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    environment.prepare()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "caravan" / "kernels")


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    environment.prepare()
    assert os.environ["NUMBA_CACHE_DIR"] == "/somewhere"
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_it_comes_before_torch_and_numba() -> None:
    code = "import sys, caravan.worker.environment; print({'torch', 'numba'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result
