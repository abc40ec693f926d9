"""Runs one client's checks in its own environment, against servers that live as long."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import ExitStack

from clients.catalog import Client
from clients.environments import command, environment, variables
from clients.results import Outcome, read_outcomes
from clients.servers import API_KEY, running

TIMEOUT_S = 600  # for all checks of a client


def check(client: Client, features: Sequence[str] = ()) -> list[Outcome]:
    """The outcomes of all checks, or of some. Raises ValueError, CalledProcessError."""
    directory = environment(client)
    with ExitStack() as stack:
        servers = [stack.enter_context(running(kind)) for kind in client.servers]
        found = {name: value for server in servers for name, value in server.items()}
        process = subprocess.run(
            [*command(client, directory), *features],
            cwd=directory,
            env={**variables(), **found, "CARAVAN_KEY": API_KEY},
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
    return read_outcomes(client, process.stdout.splitlines())
