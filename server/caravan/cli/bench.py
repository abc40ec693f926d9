"""`caravan bench engine`: the engine alone, in this process, under a synthetic load."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from caravan.cli.flags import Subparsers, add_engine_flags, read_engine
from caravan.errors import ConfigError

if TYPE_CHECKING:
    from caravan.cli.bench_runs import Workload

INPUT_LEN = 256  # tokens


def add_parser(subparsers: Subparsers) -> None:
    """`caravan bench` and what it can measure."""
    bench = subparsers.add_parser("bench", help="measure")
    targets = bench.add_subparsers(metavar="TARGET", required=True)
    parser = targets.add_parser(
        "engine",
        help="tokens per second, TTFT and TPOT of a checkpoint, without HTTP",
        description="Submits requests of random tokens all at once and prints tokens/s, time to "
        "first token (TTFT), time per output token (TPOT) and how close decoding comes to the "
        "time that reading weights, keys and values takes. With --context the requests stand "
        "there from the start, over random keys and values, and only decoding is measured.",
    )
    add_engine_flags(parser)
    parser.add_argument(
        "--input-len",
        type=int,
        default=None,
        metavar="N",
        help=f"prompt tokens (default: {INPUT_LEN})",
    )
    parser.add_argument("--output-len", type=int, default=64, metavar="N", help="new tokens")
    parser.add_argument(
        "--context",
        nargs="+",
        default=[],
        metavar="N",
        help="tokens that requests have when they end, as 4096, 4K, 1M: no prompt is computed",
    )
    parser.add_argument(
        "--concurrency", type=int, nargs="+", default=[1, 8], metavar="N", help="requests at once"
    )
    parser.add_argument(
        "--layers",
        default=None,
        metavar="N",
        help="only the model's first N layers, with --load-format dummy; fit: as many as fit "
        "beside the cache (--kv-cache-memory-bytes; default: a quarter of the memory)",
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="runs; medians count")
    parser.add_argument(
        "--budget", type=float, default=None, metavar="S", help="seconds; what is late is skipped"
    )
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write figures to")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Loads the model, runs the workloads, prints the table."""
    from caravan.worker import environment

    environment.prepare()
    from caravan.cli.bench_engine import measure, write_json  # torch comes with it

    config = read_engine(arguments)
    if arguments.layers not in (None, "fit") and not arguments.layers.isdigit():
        raise ConfigError(f"--layers is {arguments.layers}; it must be a number, or fit")
    budget_s = float("inf") if arguments.budget is None else arguments.budget
    facts = measure(config, workloads(arguments), arguments.repeats, arguments.layers, budget_s)
    if arguments.json is not None:
        write_json(arguments.json, facts)
    return 0


def workloads(arguments: argparse.Namespace) -> list[Workload]:
    """Every number of requests at every context, or with prompts. Raises ConfigError."""
    from caravan.cli.bench_context import parse_context
    from caravan.cli.bench_runs import Workload

    for name in ("input_len", "output_len", "repeats"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1")
    if min(arguments.concurrency) < 1:
        raise ConfigError("--concurrency must be at least 1")
    if not arguments.context:
        input_len = arguments.input_len or INPUT_LEN
        return [
            Workload(concurrency, arguments.output_len, input_len=input_len)
            for concurrency in arguments.concurrency
        ]
    if arguments.input_len is not None:
        raise ConfigError("--input-len and --context exclude each other: leave one of them out")
    return [
        Workload(concurrency, arguments.output_len, context=parse_context(context))
        for context in arguments.context
        for concurrency in arguments.concurrency
    ]
