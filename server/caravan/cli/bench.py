"""`caravan bench engine`: the engine alone, in this process, under a synthetic load."""

from __future__ import annotations

import argparse
from pathlib import Path

from caravan.cli.flags import Subparsers, add_engine_flags, read_engine
from caravan.errors import ConfigError


def add_parser(subparsers: Subparsers) -> None:
    """`caravan bench` and what it can measure."""
    bench = subparsers.add_parser("bench", help="measure")
    targets = bench.add_subparsers(metavar="TARGET", required=True)
    parser = targets.add_parser(
        "engine",
        help="tokens per second, TTFT and TPOT of a checkpoint, without HTTP",
        description="Submits requests of random tokens all at once and prints tokens/s, time to "
        "first token (TTFT), time per output token (TPOT) and how close decoding comes to the "
        "time that reading the weights takes.",
    )
    add_engine_flags(parser)
    parser.add_argument("--input-len", type=int, default=256, metavar="N", help="prompt tokens")
    parser.add_argument("--output-len", type=int, default=64, metavar="N", help="new tokens")
    parser.add_argument(
        "--concurrency", type=int, nargs="+", default=[1, 8], metavar="N", help="requests at once"
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="runs; medians count")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write figures to")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Loads the model, runs the workloads, prints the table."""
    from caravan.worker import environment

    environment.prepare()
    from caravan.cli.bench_engine import Workload, measure  # torch comes with it

    config = read_engine(arguments)
    for name in ("input_len", "output_len", "repeats"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1")
    if min(arguments.concurrency) < 1:
        raise ConfigError("--concurrency must be at least 1")
    workloads = [
        Workload(concurrency, arguments.input_len, arguments.output_len)
        for concurrency in arguments.concurrency
    ]
    measure(config, workloads, arguments.repeats, arguments.json)
    return 0
