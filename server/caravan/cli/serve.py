"""`caravan serve`: its flags, and the configuration that they give."""

from __future__ import annotations

import argparse

from caravan import logs
from caravan.cli.flags import Subparsers, add_flags, add_model, read
from caravan.config import (
    ApiConfig,
    CacheConfig,
    EngineConfig,
    ModelConfig,
    SchedulerConfig,
    ServeConfig,
)


def add_parser(subparsers: Subparsers) -> None:
    """Adds `serve`."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a model",
        description="Serves a Llama 4 model over OpenAI's HTTP API.",
    )
    add_model(parser)
    for config in (ApiConfig, ModelConfig, CacheConfig, SchedulerConfig):
        add_flags(parser, config)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serves until a signal. Raises ConfigError."""
    engine = EngineConfig(
        model=read(arguments, ModelConfig),
        cache=read(arguments, CacheConfig),
        scheduler=read(arguments, SchedulerConfig),
    )
    config = ServeConfig(engine=engine, api=read(arguments, ApiConfig))
    logs.configure("api")
    from caravan.cli.serving import serve  # the web framework takes a second to import

    return serve(config)
