"""Where this user keeps what can be made again: the demo model, compiled kernels.

What is read from here is trusted (a compiled kernel is code), so nobody else may be able to put
something there.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from caravan.errors import ConfigError


def cache_directory() -> Path:
    """The user's cache, or a private directory among the temporary ones if it is not writable.

    XDG_CACHE_HOME is honoured. Raises ConfigError if neither can be written.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return _writable(home / "caravan")
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        return _temporary()


def _writable(directory: Path) -> Path:
    """Makes the directory if need be. Raises OSError if no file can be made in it."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
        return directory


def _temporary() -> Path:
    directory = Path(tempfile.gettempdir()) / f"caravan-{os.getuid()}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        owner = directory.lstat().st_uid
        if directory.is_symlink() or owner != os.getuid():
            raise ConfigError(
                f"{directory} belongs to someone else; set XDG_CACHE_HOME to a writable directory"
            )
        return _writable(directory)
    except OSError as error:
        raise ConfigError(
            f"Caravan needs a place for its cache: neither the user's cache directory nor "
            f"{directory} can be written; set XDG_CACHE_HOME to a writable directory"
        ) from error
