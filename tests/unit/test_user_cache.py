"""Where this user's cache is, and what is not trusted."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from caravan.errors import ConfigError
from caravan.user_cache import cache_directory


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "cache"


def test_the_environment_names_it(cache: Path) -> None:
    assert cache_directory() == cache / "caravan"
    assert cache_directory().is_dir()


def test_by_default_it_is_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory() == tmp_path / "home" / ".cache" / "caravan"


def test_an_unwritable_one_falls_back_to_a_private_temporary_directory(
    cache: Path, tmp_path: Path
) -> None:
    cache.write_text("a file where the cache directory should be")
    directory = cache_directory()
    assert directory == tmp_path / "tmp" / f"caravan-{os.getuid()}"
    assert directory.stat().st_mode & 0o077 == 0
    assert cache_directory() == directory


def test_nowhere_to_write(cache: Path, tmp_path: Path) -> None:
    cache.write_text("")
    (tmp_path / "tmp").rmdir()
    with pytest.raises(ConfigError, match=r"needs a place for its cache.*set XDG_CACHE_HOME"):
        cache_directory()


def test_a_planted_temporary_directory_is_not_trusted(cache: Path, tmp_path: Path) -> None:
    cache.write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tmp" / f"caravan-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="belongs to someone else"):
        cache_directory()
