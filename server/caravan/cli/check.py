"""`caravan check`: its flags, and the configuration that they give."""

from __future__ import annotations

import argparse

from caravan.cli.flags import Subparsers, add_engine_flags, read_engine
from caravan.cli.gpu_kinds import GPUS


def add_parser(subparsers: Subparsers) -> None:
    """Adds `check`."""
    parser = subparsers.add_parser(
        "check",
        help="show what a model takes",
        description="Shows what would be loaded, the memory it takes, and the longest context.",
    )
    add_engine_flags(parser)
    parser.add_argument(
        "--gpu",
        choices=GPUS,
        help="show what the model would take on GPUs of this kind, which need not be there",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the table. Raises ConfigError."""
    from caravan.cli.checking import (
        check,
        check_on,
    )  # the Hub's client takes half a second to import

    config = read_engine(arguments)
    return check(config) if arguments.gpu is None else check_on(config, arguments.gpu)
