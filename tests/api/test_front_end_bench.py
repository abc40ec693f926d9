"""The benchmark of the HTTP side, as small as it can be."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "server/bench/front_end.py"


@pytest.fixture
def byte_tokenizer(tmp_path: Path) -> Path:
    """The directory of one: a token for every byte, and the special ones."""
    lines = (b"%s %d\n" % (base64.b64encode(bytes([byte])), byte) for byte in range(256))
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines))
    return tmp_path


def test_every_case_is_measured(byte_tokenizer: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    sizes = "--streams 2 --tokens 3 --clients 2 --short 2 --requests 2 --repeats 1"
    flags = ["--tokenizer", str(byte_tokenizer), "--json", str(result)]
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *sizes.split(), *flags],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(result.read_text())
    assert [case["case"] for case in found["results"]] == [
        "chat stream",
        "chat request",
        "text stream",
        "text request",
    ]
    for case in found["results"]:
        assert f"{case['case']} x 2" in run.stdout
        assert min(case["caravan"], case["raw"], case["caravan/raw"]) > 0
        assert ("burst" in case) == case["case"].endswith("stream")
    assert {"command", "date", "cpu", "cores", "python", "uvicorn", "pydantic"} <= found.keys()
