"""One environment per client, made once and kept under ~/.cache/caravan-clients.

An environment's name holds a hash of what it was made from: a changed pin makes a new one. A folder
without its mark was interrupted, and is made again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from clients.catalog import HERE, Client

CACHE = Path.home() / ".cache/caravan-clients"
INSTALL_TIMEOUT_S = 1200

# Nothing a client does here may leave the machine, or wait for a proxy.
OFFLINE = {
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "127.0.0.1",
    "TRANSFORMERS_OFFLINE": "1",
}


def environment(client: Client) -> Path:
    """The client's environment, made if there is none. Raises CalledProcessError."""
    directory = CACHE / f"{client.name}-{_fingerprint(client)}"
    mark = directory / "complete"
    if not mark.exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        (_install_node if client.uses_node else _install_python)(client, directory)
        mark.touch()
    return directory


def command(client: Client, directory: Path) -> list[str]:
    """What runs the client's checks in its environment."""
    if not client.uses_node:
        return [str(directory / "bin/python"), str(client.folder / "check.py")]
    for file in (client.folder / "check.mjs", HERE / "checklist.mjs", HERE / "samples.json"):
        shutil.copy(file, directory)  # node looks for packages beside the script
    return ["node", str(directory / "check.mjs")]


def variables() -> dict[str, str]:
    """Environment variables of a check: this process's own, `clients` importable, no internet."""
    kept = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    return {**kept, **OFFLINE, "PYTHONPATH": str(HERE.parent)}


def _fingerprint(client: Client) -> str:
    parts = [file.read_bytes() for file in client.pins]
    if not client.uses_node:
        parts.append(sys.version.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _install_python(client: Client, directory: Path) -> None:
    _run([sys.executable, "-m", "venv", str(directory)])
    requirements = str(client.folder / "requirements.txt")
    _run([str(directory / "bin/pip"), "install", "--quiet", "--requirement", requirements])


def _install_node(client: Client, directory: Path) -> None:
    for file in client.pins:
        shutil.copy(file, directory)
    _run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(directory)])


def _run(arguments: list[str]) -> None:
    """Its output goes to stderr: the runner's own stdout is for results."""
    subprocess.run(arguments, check=True, timeout=INSTALL_TIMEOUT_S, stdout=sys.stderr)
