"""Servers for the checks, each a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from caravan.model.source import DEMO
from clients.catalog import ServerKind
from clients.environments import variables
from system.running_server import RunningServer

API_KEY = "caravan-key"
MODEL = "meta-llama/Llama-4-Scripted"
STOP_S = 30


@contextmanager
def running(kind: ServerKind) -> Iterator[dict[str, str]]:
    """Environment variables that lead to a server, which runs until the block ends.

    Both kinds want API_KEY. The demo's directory comes with it, for its tokenizer.
    """
    if kind == "scripted":
        with _scripted() as url:
            yield {"CARAVAN_SCRIPTED_URL": url, "CARAVAN_MODEL": MODEL}
        return
    with RunningServer("--api-key", API_KEY) as server:
        yield {"CARAVAN_DEMO_URL": server.until_ready().url, "CARAVAN_TOKENIZER": str(DEMO)}
        sys.stderr.writelines(server.stderr)


@contextmanager
def _scripted() -> Iterator[str]:
    command = [sys.executable, "-m", "clients.server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables()) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(STOP_S)
