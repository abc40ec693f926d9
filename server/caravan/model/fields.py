"""Typed reading of the JSON files beside the weights; every error names file, field and rule."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from caravan.errors import CheckpointError


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError if there is none."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist; a model directory holds config.json, a tokenizer and "
            "*.safetensors"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON; copy or download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return value


@dataclass(frozen=True, slots=True)
class Section:
    """One JSON object of a file; every method raises CheckpointError where the rule is broken.

    A default stands for an absent field only: `null` is a value.
    """

    values: Mapping[str, Any]
    where: str  # what precedes a field's name in an error

    def refuse(self, name: str, rule: str) -> CheckpointError:
        """The error for a field, to be raised: what it is, and the rule that it breaks."""
        value = json.dumps(self.values.get(name))
        value = value if len(value) <= 60 else value[:57] + "..."
        return CheckpointError(f"{self.where}{name} is {value}; {rule}")

    def integer(self, name: str, default: int, minimum: int = 1) -> int:
        """An integer of at least `minimum`."""
        value = self.values.get(name, default)
        if type(value) is not int or value < minimum:
            raise self.refuse(name, f"it must be an integer of at least {minimum}")
        return value

    def optional_integer(self, name: str, default: int | None) -> int | None:
        """An integer of at least 1, or null."""
        if self.values.get(name, default) is None:
            return None
        return self.integer(name, cast("int", default))

    def number(self, name: str, default: float) -> float:
        """A finite number above 0."""
        value = self.values.get(name, default)
        if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
            raise self.refuse(name, "it must be a number above 0")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(name, default)
        if type(value) is not bool:
            raise self.refuse(name, "it must be true or false")
        return value

    def items(self, name: str) -> list[Any] | None:
        """A list; None if it is absent or null."""
        value = self.values.get(name)
        if not (value is None or isinstance(value, list)):
            raise self.refuse(name, "it must be a list")
        return value

    def section(self, name: str) -> Section:
        """An object inside this one."""
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise self.refuse(name, "it must be an object")
        return Section(value, f"{self.where}{name}.")
