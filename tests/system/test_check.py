"""`caravan check` and the command's own edges, in real processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import caravan
from caravan.model.source import resolve_model


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "caravan", *arguments], capture_output=True, text=True, timeout=120
    )


def rows(output: str) -> dict[str, str]:
    return {line[:18].strip(): line[19:] for line in output.splitlines()}


def test_check_shows_what_the_demo_takes() -> None:
    result = run("check", "--device", "cpu", "--kv-cache-memory-bytes", str(2**20))
    assert result.returncode == 0, result
    assert result.stderr == ""
    table = rows(result.stdout)
    assert table["model"] == str(resolve_model(""))
    assert table["files"].endswith(" GiB")
    assert table["images"] == "tiles of 64 pixels, 16 tokens each, at most 5 per image"
    assert table["layers"].startswith("8: 6 chunked, 2 full; 4 with 4 experts")
    # Two full layers, two key heads of 64, keys and values, two bytes: 1024 per token.
    assert table["cache"].startswith("1,024 bytes per token")
    assert table["this machine"] == "cpu, 0.001 GiB for the cache"
    # 64 pages of 16 tokens x 2 layers; 3 x 16 hold a chunk of 256 tokens, 16 blocks are left.
    assert table["longest context"] == "256 tokens"


def test_check_refuses_what_serve_refuses() -> None:
    result = run("check", "--device", "cpu", "--max-model-len", "1000000")
    assert result.returncode == 2
    assert "8,192 tokens" in result.stdout, "the table comes first"
    assert result.stderr == (
        "caravan: error: --max-model-len is 1000000; the model was made for at most 8192\n"
    )


def test_check_compares_the_files_with_the_configuration(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(resolve_model(""), model)
    config = json.loads((model / "config.json").read_text())
    config["text_config"]["intermediate_size_mlp"] = 300
    (model / "config.json").write_text(json.dumps(config))
    result = run("check", str(model))
    assert result.returncode == 2
    assert "does not fit its config.json" in result.stderr
    assert result.stderr.count("\n") == 1


def test_check_shows_what_a_picture_takes(tiny_checkpoint: Callable[..., Path]) -> None:
    result = run("check", str(tiny_checkpoint("scout", multimodal=True)))
    assert result.returncode == 0, result
    table = rows(result.stdout)
    assert table["images"] == "tiles of 56 pixels, 4 tokens each, at most 17 per image"
    assert table["vision"].endswith(" GiB")
    assert "text only" not in table["files"]
    assert run("check", str(tiny_checkpoint("scout"))).stdout.count("reads text only") == 1


def test_check_says_that_there_is_no_vision_encoder(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """A text-only export with the configuration of the multimodal model."""
    shutil.copytree(tiny_checkpoint("scout"), tmp_path, dirs_exist_ok=True)
    multimodal = tiny_checkpoint("scout", multimodal=True)
    shutil.copy(multimodal / "config.json", tmp_path)
    result = run("check", str(tmp_path))
    assert result.returncode == 0, result
    table = rows(result.stdout)
    assert table["files"].endswith(
        "none of the vision encoder that config.json describes: text only"
    )
    assert table["images"] == "none: the model reads text only"
    assert "vision" not in table


def test_check_says_that_a_vision_encoder_is_not_read(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """The multimodal model's files with a text-only configuration."""
    shutil.copytree(tiny_checkpoint("scout", multimodal=True), tmp_path, dirs_exist_ok=True)
    shutil.copy(tiny_checkpoint("scout") / "config.json", tmp_path)
    files = rows(run("check", str(tmp_path)).stdout)["files"]
    assert files.endswith("of a vision encoder are not read: text only")


def test_a_directory_without_safetensors_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(resolve_model(""), model)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    result = run("check", str(model))
    assert result.returncode == 2
    assert "Caravan reads safetensors only" in result.stderr
    assert run("check", str(model), "--load-format", "dummy").returncode == 0


def test_version_and_help() -> None:
    assert run("--version").stdout == f"caravan {caravan.__version__}\n"
    assert "COMMAND" in run("--help").stdout


def test_no_command_and_an_unknown_one_are_one_line() -> None:
    for arguments in ([], ["fly"], ["serve", "--fly"]):
        result = run(*arguments)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("caravan")


def test_check_predicts_for_gpus_that_are_not_there(tmp_path: Path) -> None:
    config = {
        "architectures": ["Llama4ForCausalLM"],
        "model_type": "llama4_text",
        "max_position_embeddings": 10485760,
        "dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    scout = ("check", str(tmp_path), "--load-format", "dummy", "--gpu", "h200")
    result = run(*scout, "--tensor-parallel-size", "8")
    assert result.returncode == 0, result
    table = rows(result.stdout)
    assert table["weights"] == "25.099 GiB in bfloat16"
    assert table["on"].startswith("8 x H200, 139.800 GiB each")
    assert table["longest context"] == "10,485,760 tokens"
    decode = " ".join(table["decode, at best"].split())
    assert decode == "1 x 1,024 tokens 1.28 ms a step, 779 tokens/s"
    result = run(*scout)
    assert result.returncode == 2
    assert "the weights take 200.74 GiB" in result.stderr
