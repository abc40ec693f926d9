"""Runs the checks of the clients that people really use.

    python tests/clients/run.py
    python tests/clients/run.py --only openai3 --feature stream
    python tests/clients/run.py --table docs/clients.md

Each client has an environment of its own under ~/.cache/caravan-clients, made from PyPI or npm at
first use; everything else stays on this machine. The exit status is 1 if something fails that
known_limits.toml does not list, or works that it does.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from clients.catalog import FEATURES, read_clients, read_limits
from clients.checking import check
from clients.results import Outcome, surprises
from clients.table import write_table


def main() -> int:
    """Returns the exit status."""
    clients = {client.name: client for client in read_clients()}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=clients, default=[*clients])
    parser.add_argument("--feature", nargs="+", choices=FEATURES, default=[])
    parser.add_argument("--table", type=Path, help="where to write what was found")
    arguments = parser.parse_args()
    if arguments.table and (arguments.feature or len(arguments.only) < len(clients)):
        parser.error("a table needs all clients and all features")
    outcomes: list[Outcome] = []
    for name in arguments.only:
        for outcome in check(clients[name], arguments.feature):
            outcomes.append(outcome)
            verdict = "ok" if outcome.ok else "FAILS"
            print(name, outcome.feature, verdict, outcome.note, flush=True)
    limits = read_limits()
    lines = surprises(outcomes, limits, whole=not arguments.feature)
    print("", *lines, f"{len(outcomes)} checks, {len(lines)} surprises", sep="\n")
    if arguments.table and not lines:
        today = datetime.datetime.now(tz=datetime.UTC).date()
        write_table(arguments.table, outcomes, limits, today)
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
