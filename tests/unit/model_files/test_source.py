"""resolve_model without a network; the Hub is in tests/system/test_hub.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from caravan.errors import ConfigError
from caravan.model.architecture import Architecture
from caravan.model.manifest import check_checkpoint
from caravan.model.source import DEMO, resolve_model


def test_without_a_model_it_is_the_demo() -> None:
    directory = resolve_model("")
    assert directory == DEMO
    check_checkpoint(directory, Architecture.from_directory(directory))


def test_directory_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert resolve_model(str(tmp_path)) == tmp_path
    assert resolve_model("~") == tmp_path
    assert resolve_model("org/model") == Path("org/model")


@pytest.mark.parametrize("model", ["/no/such/directory", "./model", "../m", "a/b/c", "m/", "m m"])
def test_path_that_does_not_exist(model: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_model(model)
    assert str(caught.value) == (
        f"{model}: no such directory; give a model directory, or a Hub id of the form "
        "organization/name"
    )


@pytest.mark.parametrize("model", ["~nobody-by-this-name/model", "x" * 5000])
def test_path_that_cannot_be_read(model: str) -> None:
    with pytest.raises(ConfigError, match="this path cannot be read"):
        resolve_model(model)


def test_file_instead_of_directory(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"is a file; give the directory"):
        resolve_model(str(file))


def test_reading_about_a_model_needs_no_torch() -> None:
    code = (
        "import caravan.model.source, caravan.model.manifest, caravan.model.footprint, sys;"
        "print(sorted({'torch', 'transformers', 'triton'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert found.stdout == b"[]\n"
