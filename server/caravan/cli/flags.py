"""Flags from the configuration's dataclasses: a field's name with dashes, its type, its help."""

from __future__ import annotations

import argparse
import dataclasses
import math
import types
from collections.abc import Callable
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from caravan.config import CacheConfig, EngineConfig, ModelConfig, SchedulerConfig

ConfigT = TypeVar("ConfigT")
Subparsers = Any  # argparse's own type of add_subparsers() is private


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line and without guessing at abbreviated flags."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 argparse's own
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Exits with status 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def add_flags(parser: argparse.ArgumentParser, config: type[Any]) -> None:
    """One flag per field of a config dataclass but `model`, which is positional.

    A flag that is not given leaves no trace in the parsed arguments.
    """
    group = parser.add_argument_group(config.__name__.removesuffix("Config").lower())
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        if field.name != "model":
            group.add_argument(
                "--" + field.name.replace("_", "-"),
                default=argparse.SUPPRESS,
                help=_help(field),
                **_kind(hints[field.name]),
            )


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """MODEL, and the flags of everything that the engine is told."""
    add_model(parser)
    for config in (ModelConfig, CacheConfig, SchedulerConfig):
        add_flags(parser, config)


def read_engine(arguments: argparse.Namespace) -> EngineConfig:
    """What `add_engine_flags` let the user say. Raises ConfigError."""
    return EngineConfig(
        model=read(arguments, ModelConfig),
        cache=read(arguments, CacheConfig),
        scheduler=read(arguments, SchedulerConfig),
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """The positional MODEL."""
    parser.add_argument(
        "model",
        nargs="?",
        default="",
        metavar="MODEL",
        help="local directory or Hub id; left out: the bundled demo model",
    )


def read(arguments: argparse.Namespace, config: type[ConfigT]) -> ConfigT:
    """The configuration that the arguments give; the rest is default. Raises ConfigError."""
    given = vars(arguments)
    assert dataclasses.is_dataclass(config), config
    values = {
        field.name: given[field.name] for field in dataclasses.fields(config) if field.name in given
    }
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return config(**values | lists)


def _kind(hint: Any) -> dict[str, Any]:  # noqa: ANN401 a type hint has no type of its own
    """What argparse is told about a field of this type."""
    if get_origin(hint) in (types.UnionType, Union):
        (hint,) = (option for option in get_args(hint) if option is not types.NoneType)
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is tuple:
        return {"action": "append", "type": get_args(hint)[0], "metavar": "TEXT"}
    kinds: dict[type, tuple[Callable[[str], object], str]] = {
        int: (int, "N"),
        float: (_finite, "X"),
        str: (str, "TEXT"),
    }
    convert, metavar = kinds[hint]
    return {"type": convert, "metavar": metavar}


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return number


def _help(field: dataclasses.Field[Any]) -> str:
    text = str(field.metadata["help"])
    if field.default not in (None, (), ""):
        text += f" (default: {field.default})"
    return text.replace("%", "%%")
