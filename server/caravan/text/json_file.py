"""Typed reading of the JSON files of a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from caravan.errors import CheckpointError

T = TypeVar("T")


def read_json(path: Path, type_: type[T]) -> T:
    """The file's content as `type_`. Raises CheckpointError; msgspec says which field is wrong."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged, or not a file of its kind: {error}") from error
