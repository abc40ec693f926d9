"""resolve_model without a network; the Hub is in tests/system/test_hub.py."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from caravan.errors import ConfigError
from caravan.model import demo
from caravan.model.architecture import Architecture
from caravan.model.manifest import check_checkpoint
from caravan.model.source import resolve_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "cache"


def test_demo_is_written_once_and_loads(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = resolve_model("")
    assert directory.parent == cache / "caravan"
    check_checkpoint(directory, Architecture.from_directory(directory))

    def write_again(directory: Path) -> None:
        raise AssertionError(directory)

    monkeypatch.setattr(demo, "write_demo", write_again)
    assert resolve_model("") == directory


def test_concurrent_starts_agree_and_leave_nothing_behind(cache: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(resolve_model, [""] * 3)
    assert set(others) == {first}
    assert list((cache / "caravan").iterdir()) == [first]
    check_checkpoint(first, Architecture.from_directory(first))


def test_demo_is_whole_as_soon_as_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sizes(resolve_model(""))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(resolve_model, "")
        seen: list[dict[str, int]] = []
        while not seen:
            # the name it is written under has one more hyphen
            found = [d for d in tmp_path.glob("other/caravan/*") if d.name.count("-") == 2]
            seen = [sizes(directory) for directory in found]
    assert seen == [expected]
    assert sizes(future.result()) == expected


def sizes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.iterdir()}


def test_interrupted_start_leaves_no_half_demo(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_demo = demo.write_demo

    def interrupted(directory: Path) -> None:
        (directory / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "write_demo", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resolve_model("")
    assert not list((cache / "caravan").iterdir())
    monkeypatch.setattr(demo, "write_demo", write_demo)
    check_checkpoint(resolve_model(""), Architecture.from_directory(resolve_model("")))


def test_a_full_disk_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(directory: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(demo, "write_demo", full)
    with pytest.raises(ConfigError, match=r"cannot be written to .*No space left on device"):
        resolve_model("")
    assert not list((cache / "caravan").iterdir())


def test_default_cache_is_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert resolve_model("").parent == tmp_path / "home" / ".cache" / "caravan"


def test_unwritable_cache_falls_back_to_a_private_temporary_directory(
    cache: Path, tmp_path: Path
) -> None:
    cache.write_text("a file where the cache directory should be")
    directory = resolve_model("")
    assert directory.parent == tmp_path / "tmp" / f"caravan-{os.getuid()}"
    assert directory.parent.stat().st_mode & 0o077 == 0
    assert resolve_model("") == directory


def test_nowhere_to_write(cache: Path, tmp_path: Path) -> None:
    cache.write_text("")
    (tmp_path / "tmp").rmdir()
    with pytest.raises(ConfigError, match=r"needs a place for its cache.*set XDG_CACHE_HOME"):
        resolve_model("")


def test_planted_temporary_directory_is_not_trusted(cache: Path, tmp_path: Path) -> None:
    cache.write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tmp" / f"caravan-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="belongs to someone else"):
        resolve_model("")


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
