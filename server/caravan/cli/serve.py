"""`caravan serve`: its flags, and the configuration that they give."""

from __future__ import annotations

import argparse
import os

from caravan import logs
from caravan.cli.flags import Subparsers, add_engine_flags, add_flags, read, read_engine
from caravan.config import ApiConfig, ImageConfig, ServeConfig


def add_parser(subparsers: Subparsers) -> None:
    """Adds `serve`."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a model",
        description="Serves a Llama 4 model over OpenAI's HTTP API.",
    )
    add_engine_flags(parser)
    add_flags(parser, ApiConfig)
    add_flags(parser, ImageConfig)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serves until a signal, or is one rank of a split model. Raises ConfigError."""
    config = ServeConfig(
        engine=read_engine(arguments),
        api=read(arguments, ApiConfig),
        images=read(arguments, ImageConfig),
    )
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ["RANK"] != "0":
        from caravan.cli.following import follow  # loads torch

        return follow(config.engine)
    logs.configure("api")
    from caravan.cli.serving import serve  # the web framework takes a second to import

    return serve(config)
