"""Servers for the checks, each a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caravan.model.demo import write_byte_tokenizer
from clients.catalog import ServerKind
from clients.environments import variables
from system.running_server import RunningServer

API_KEY = "caravan-key"
MODEL = "meta-llama/Llama-4-Scripted"
STOP_S = 30


@contextmanager
def running(kind: ServerKind) -> Iterator[dict[str, str]]:
    """Environment variables that lead to a server, which runs until the block ends.

    Both kinds want API_KEY. The demo's tokenizer comes with it, as a directory for `transformers`.
    """
    if kind == "scripted":
        with _scripted() as url:
            yield {"CARAVAN_SCRIPTED_URL": url, "CARAVAN_MODEL": MODEL}
        return
    with (
        tempfile.TemporaryDirectory() as tokenizer,
        RunningServer("--api-key", API_KEY) as server,
    ):
        write_byte_tokenizer(Path(tokenizer))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|eot|>"}
        (Path(tokenizer) / "tokenizer_config.json").write_text(json.dumps(settings))
        yield {"CARAVAN_DEMO_URL": server.until_ready().url, "CARAVAN_TOKENIZER": tokenizer}
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
