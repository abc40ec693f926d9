"""`caravan check`: its flags, and the configuration that they give."""

from __future__ import annotations

import argparse

from caravan.cli.flags import Subparsers, add_engine_flags, read_engine


def add_parser(subparsers: Subparsers) -> None:
    """Adds `check`."""
    parser = subparsers.add_parser(
        "check",
        help="show what a model takes",
        description="Shows what would be loaded, the memory it takes, and the longest context.",
    )
    add_engine_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the table. Raises ConfigError."""
    from caravan.cli.checking import check  # the Hub's client takes half a second to import

    return check(read_engine(arguments))
