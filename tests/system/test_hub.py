"""Models from a hub: a real client, in its own process, against a hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from caravan.model.architecture import Architecture
from caravan.model.manifest import check_checkpoint
from caravan.model.source import DEMO
from fake_hub import fake_hub

RESOLVE = """
import json, sys
from caravan.errors import ConfigError
from caravan.model.source import resolve_model
answers = []
for model in sys.argv[2:]:
    try:
        answers.append(str(resolve_model(model, weights=sys.argv[1] == "weights")))
    except ConfigError as error:
        answers.append(f"ConfigError: {error}")
print(json.dumps(answers))
"""


def resolve(
    url: str, home: Path, *models: str, weights: bool = True, **environment: str
) -> list[str]:
    """What resolve_model returns, or the ConfigError it raises, in a process of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, "weights" if weights else "", *models],
        env={**kept, "HF_ENDPOINT": url, "HF_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers: list[str] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """A repository: the demo's files, and others that are not wanted."""
    wanted = {path.name: path.read_bytes() for path in DEMO.iterdir()}
    return wanted | {
        "pytorch_model.bin": b"pickle",
        "modeling_llama4.py": b"raise SystemExit('remote code')",
        "original/params.json": b"{}",
        "original/consolidated.00.safetensors": b"",
        "README.md": b"",
    }


WANTED = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


def test_download_fetches_what_is_needed_and_works_offline_later(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    with fake_hub({"org/model": files}) as hub:
        (answer,) = resolve(hub.url, tmp_path, "org/model")
        assert sorted(hub.downloads) == WANTED
        directory = Path(answer)
        assert sorted(path.name for path in directory.iterdir()) == WANTED
        check_checkpoint(directory, Architecture.from_directory(directory))
    (again, other) = resolve(hub.url, tmp_path, "org/model", "org/other")
    assert again == answer
    assert other == (
        "ConfigError: org/other: there is no such directory here and no complete download of that "
        "model, and the Hub cannot be reached; check the network (and HF_HUB_OFFLINE), or give a "
        "directory"
    )


def test_without_weights(files: dict[str, bytes], tmp_path: Path) -> None:
    with fake_hub({"org/model": files}) as hub:
        resolve(hub.url, tmp_path, "org/model", weights=False)
        assert sorted(hub.downloads) == [name for name in WANTED if name.endswith(".json")]
        (answer,) = resolve(hub.url, tmp_path, "org/model", HF_HUB_OFFLINE="1")
        assert "no complete download of that model" in answer
        (answer,) = resolve(hub.url, tmp_path, "org/model")
        assert (Path(answer) / "model.safetensors").exists()
        assert sorted(hub.downloads) == WANTED


def test_what_the_hub_refuses(files: dict[str, bytes], tmp_path: Path) -> None:
    repos = {"org/gated": files, "org/model": files}
    with fake_hub(repos, gated=frozenset({"org/gated"})) as hub:
        missing, gated = resolve(hub.url, tmp_path, "org/missing", "org/gated")
        assert (
            "org/missing: there is no such directory here and no such model on the Hub" in missing
        )
        assert "org/gated: access to it is restricted; accept its licence" in gated
        assert hub.downloads == []
        (answer,) = resolve(hub.url, tmp_path, "org/gated", HF_TOKEN=hub.token)
        assert Path(answer).is_dir()
        hub.status = 500
        (answer,) = resolve(hub.url, tmp_path, "org/other")
        assert "org/other: there is no such directory here and no complete download" in answer


def test_broken_connection(files: dict[str, bytes], tmp_path: Path) -> None:
    with fake_hub({"org/model": {"config.json": files["config.json"]}}) as hub:
        hub.cut_after = 10
        (answer,) = resolve(hub.url, tmp_path, "org/model")
        assert "org/model: the download failed" in answer
        assert "start again" in answer
        hub.cut_after = None
        (answer,) = resolve(hub.url, tmp_path, "org/model")
        assert (Path(answer) / "config.json").read_bytes() == files["config.json"]
