from __future__ import annotations

import json
from pathlib import Path

import pytest

from caravan.errors import CheckpointError
from caravan.text.defaults import GenerationDefaults


def read(directory: Path, content: object) -> GenerationDefaults:
    (directory / "generation_config.json").write_text(json.dumps(content))
    return GenerationDefaults.from_directory(directory)


def test_without_file_or_fields_nothing_is_said(tmp_path: Path) -> None:
    assert GenerationDefaults.from_directory(tmp_path) == GenerationDefaults()
    assert read(tmp_path, {}) == GenerationDefaults()
    assert read(tmp_path, {"temperature": None, "eos_token_id": None}) == GenerationDefaults()


def test_the_file_of_llama_4_instruct(tmp_path: Path) -> None:
    content = {
        "bos_token_id": 200000,
        "do_sample": True,
        "eos_token_id": [200001, 200007, 200008],
        "pad_token_id": 200018,
        "temperature": 0.6,
        "top_p": 0.9,
        "transformers_version": "4.51.0.dev0",
    }
    assert read(tmp_path, content) == GenerationDefaults(
        temperature=0.6, top_p=0.9, eos_token_ids=(200001, 200007, 200008)
    )


def test_one_end_token_and_whole_numbers(tmp_path: Path) -> None:
    content = {"eos_token_id": 0, "temperature": 1, "top_p": 1, "top_k": 50}
    defaults = read(tmp_path, content)
    assert defaults == GenerationDefaults(temperature=1.0, top_p=1.0, top_k=50, eos_token_ids=(0,))
    assert isinstance(defaults.temperature, float)


def test_not_sampling_is_greedy(tmp_path: Path) -> None:
    assert read(tmp_path, {"do_sample": False, "temperature": 0.6}).temperature == 0
    assert read(tmp_path, {"do_sample": False}).temperature == 0
    assert read(tmp_path, {"do_sample": True}).temperature is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", "warm"),
        ("temperature", True),
        ("top_p", 0),
        ("top_p", 1.01),
        ("top_k", -1),
        ("top_k", 1.5),
        ("do_sample", "yes"),
        ("eos_token_id", -1),
        ("eos_token_id", [1, "2"]),
        ("eos_token_id", True),
    ],
)
def test_wrong_values_are_refused_by_name(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=rf"generation_config\.json: .*\$\.{field}"):
        read(tmp_path, {field: value})


@pytest.mark.parametrize("content", [b"", b"[]", b'{"top_p": NaN}', b'{"top_p": 1e999}'])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "generation_config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"generation_config\.json: damaged"):
        GenerationDefaults.from_directory(tmp_path)
