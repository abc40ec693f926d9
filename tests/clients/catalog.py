"""What there is to check: clients, and features that a client may have.

Each client is a folder with its pins (requirements.txt, or package.json with its lock) and a script
that runs one check per feature. `clients.toml` holds what the folder cannot say.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).parent

ServerKind = Literal["scripted", "demo"]

# In the order of the table; what a client lacks, its script has no check for.
FEATURES = {
    "chat": "chat",
    "roles": "system and developer messages",
    "stream": "streams, with their usage",
    "choices": "`n`",
    "stop": "`stop`, and a limit of tokens",
    "seed": "`seed`",
    "logprobs": "`logprobs`",
    "logprobs_stream": "`logprobs` of streams",
    "image": "pictures as `data:` URLs",
    "tools_auto": "tools: called when it helps",
    "tools_pythonic": "tools: called as a Python list",
    "tools_required": "tools: `required`",
    "tools_named": "tools: one by its name",
    "tools_allowed": "tools: `allowed_tools`",
    "tools_none": "tools: `none`",
    "tools_parallel": "tools: several calls, or one",
    "tools_strict": "tools: `strict`",
    "tools_stream": "tools: streamed calls",
    "tools_results": "tools: results, and the answer",
    "tools_custom": "tools: custom ones",
    "tools_custom_stream": "tools: custom ones, streamed",
    "json_object": "output: a JSON object",
    "json_schema": "output: a JSON schema",
    "json_schema_stream": "output: a JSON schema, streamed",
    "completions": "completions",
    "completions_echo": "completions: `echo` with `logprobs`",
    "completions_many": "completions: several prompts, `n`",
    "completions_stream": "completions: streams",
    "models": "models",
    "error_model": "error: no such model",
    "error_parameter": "error: unknown or wrong field",
    "error_context": "error: too long for the context",
    "error_key": "error: wrong API key",
    "error_stream": "error: the engine dies in a stream",
    "retries": "retries, with `Retry-After`",
    "request_id": "request ids",
    "timeout": "the client's timeout",
    "eval_loglikelihood": "evaluation: log-likelihoods",
    "eval_completions": "evaluation: generated text",
    "eval_stops": "evaluation: more than four stop strings",
    "eval_chat": "evaluation: generated text of chats",
}


@dataclass(frozen=True, slots=True)
class Client:
    """One client library or program."""

    name: str  # of its folder
    title: str
    package: str  # whose version the table shows
    servers: tuple[ServerKind, ...]

    @property
    def folder(self) -> Path:
        return HERE / self.name

    @property
    def uses_node(self) -> bool:
        return (self.folder / "package.json").exists()

    @property
    def pins(self) -> list[Path]:
        """The files that say what is installed."""
        names = ["package.json", "package-lock.json"] if self.uses_node else ["requirements.txt"]
        return [self.folder / name for name in names]

    @property
    def version(self) -> str:
        """Of the package, as it is pinned."""
        text = self.pins[0].read_text(encoding="utf-8")
        if self.uses_node:
            return str(json.loads(text)["dependencies"][self.package])
        pins = dict(line.split("==") for line in text.splitlines())
        return next(pin for name, pin in pins.items() if name.split("[")[0] == self.package)


def read_clients() -> list[Client]:
    """All clients, in the order of the table."""
    return [
        Client(name, entry["title"], entry["package"], tuple(entry["servers"]))
        for name, entry in _read("clients.toml").items()
    ]


def read_limits() -> dict[tuple[str, str], str]:
    """What is known not to work, by client and feature: the reason."""
    return {
        (client, feature): reason
        for client, reasons in _read("known_limits.toml").items()
        for feature, reason in reasons.items()
    }


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((HERE / name).read_text(encoding="utf-8"))
