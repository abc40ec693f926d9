"""Flags: the frozen list, and how they become configuration."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
from typing import Literal

import pytest

from caravan.cli import flags
from caravan.config import (
    ApiConfig,
    CacheConfig,
    ImageConfig,
    ModelConfig,
    SchedulerConfig,
    setting,
)
from caravan.errors import ConfigError

CONFIGS = (ApiConfig, ModelConfig, CacheConfig, SchedulerConfig, ImageConfig)

# Users' scripts depend on every one of these. Add; do not rename, do not remove.
FLAGS = re.findall(
    r"\S+",
    """
    --allowed-media-domains --allowed-private-hosts --api-key --async-scheduling --block-size
    --device --dtype --enforce-eager --engine-timeout --gpu-memory-utilization --host
    --ignore-unknown-fields --image-cache-memory-bytes --image-timeout --kv-cache-dtype
    --kv-cache-memory-bytes
    --limit-images-per-prompt --load-format --max-body-bytes --max-image-bytes --max-image-pixels
    --max-model-len --max-num-batched-tiles --max-num-batched-tokens --max-num-seqs
    --max-queued-requests --max-queued-tokens --ping-interval --port --quantization
    --rank-timeout --seed
    --served-model-name --shutdown-timeout --tensor-parallel-size --ui
""",
)


def parse(line: str) -> argparse.Namespace:
    return new_parser().parse_args(shlex.split(line))


def new_parser() -> flags.Parser:
    parser = flags.Parser(prog="caravan serve")
    flags.add_model(parser)
    for config in CONFIGS:
        flags.add_flags(parser, config)
    return parser


def test_the_flags_are_frozen() -> None:
    shown = re.findall(r"^ +(--[a-z-]+)", new_parser().format_help(), flags=re.MULTILINE)
    assert sorted(shown) == FLAGS


def test_every_flag_has_its_help_and_its_default() -> None:
    text = " ".join(new_parser().format_help().split())
    for config in CONFIGS:
        for field in dataclasses.fields(config):
            if field.name != "model":
                assert field.metadata["help"] in text
    assert "port to listen on; 0: a free one (default: 8000)" in text


def test_without_flags_every_configuration_is_the_default() -> None:
    arguments = new_parser().parse_args([])
    assert [flags.read(arguments, config) for config in CONFIGS] == [c() for c in CONFIGS]


def test_limits_of_images() -> None:
    assert (
        flags.read(parse("--limit-images-per-prompt 0"), ImageConfig).limit_images_per_prompt == 0
    )
    for line, limit in (
        ("--limit-images-per-prompt -1", "at least 0"),
        ("--max-image-pixels 0", "at least 1"),
        ("--image-timeout 0", "above 0"),
    ):
        name, value = line.split()
        with pytest.raises(ConfigError, match=f"{name} is {value}.*{limit}"):
            flags.read(parse(line), ImageConfig)


def test_switches_have_a_no() -> None:
    given = [flags.read(parse(line), SchedulerConfig) for line in ("", "--async-scheduling")]
    assert [config.async_scheduling for config in given] == [None, True]
    assert flags.read(parse("--no-async-scheduling"), SchedulerConfig).async_scheduling is False
    assert flags.read(parse("--enforce-eager"), ModelConfig).enforce_eager
    assert flags.read(parse(""), ApiConfig).ui
    assert not flags.read(parse("--no-ui"), ApiConfig).ui


@pytest.mark.parametrize(
    ("device", "tokens", "ahead"),
    [("cpu", 512, False), ("cuda", 8192, True), ("cuda:0", 8192, True)],
)
def test_what_is_not_given_follows_the_device(device: str, tokens: int, ahead: bool) -> None:
    default = SchedulerConfig().resolved(device)
    assert (default.max_num_batched_tokens, default.async_scheduling) == (tokens, ahead)
    given = SchedulerConfig(max_num_batched_tokens=7, async_scheduling=not ahead)
    assert given.resolved(device) == given
    assert CacheConfig().block_len(device) == (16 if device == "cpu" else 64)
    assert CacheConfig(block_size=7).block_len(device) == 7


def test_flags_set_their_fields_and_no_others() -> None:
    arguments = parse(
        "some/model --port 0 --api-key a --api-key b --served-model-name x --max-model-len 4096 "
        "--dtype float32 --gpu-memory-utilization 0.5 --max-num-seqs 7"
    )
    assert flags.read(arguments, ApiConfig) == ApiConfig(
        port=0, api_key=("a", "b"), served_model_name="x"
    )
    assert flags.read(arguments, ModelConfig) == ModelConfig(
        model="some/model", max_model_len=4096, dtype="float32"
    )
    assert flags.read(arguments, CacheConfig) == CacheConfig(gpu_memory_utilization=0.5)
    assert flags.read(arguments, SchedulerConfig) == SchedulerConfig(max_num_seqs=7)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--port eighty", "argument --port: invalid int value: 'eighty'"),
        ("--dtype fp4", "argument --dtype: invalid choice: 'fp4'"),
        ("--shutdown-timeout nan", "argument --shutdown-timeout: nan is not a finite number"),
        ("--shutdown-timeout inf", "argument --shutdown-timeout: inf is not a finite number"),
        ("--ping-interval soon", "argument --ping-interval: invalid"),
        ("--max-model 4096", "unrecognized arguments: --max-model"),
        ("--model some/model", "unrecognized arguments: --model"),
        ("one two", "unrecognized arguments: two"),
        ("--port", "argument --port: expected one argument"),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(
    line: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(line)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert error.startswith("caravan serve: error: ")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--quantization fp8", "--quantization is fp8; .*use none, or leave the flag out"),
        ("--kv-cache-dtype fp8", "--kv-cache-dtype is fp8; .*use auto, or leave the flag out"),
        ("--tensor-parallel-size 3", "--tensor-parallel-size is 3; it must be 1, 2, 4 or 8"),
        ("--rank-timeout 0", "--rank-timeout is 0.0; it must be above 0"),
        ("--port 65536", "--port is 65536; it must be between 0 and 65535"),
        ("--max-num-seqs 0", "--max-num-seqs is 0; it must be at least 1"),
        ("--shutdown-timeout -1", "--shutdown-timeout is -1.0; it must be at least 0"),
    ],
)
def test_what_this_release_cannot_do_is_refused_by_name(line: str, complaint: str) -> None:
    arguments = parse(line)
    with pytest.raises(ConfigError, match=complaint):
        [flags.read(arguments, config) for config in CONFIGS]


def test_the_only_legal_values_are_accepted() -> None:
    arguments = parse("--quantization none --kv-cache-dtype auto")
    assert flags.read(arguments, ModelConfig) == ModelConfig()
    assert flags.read(arguments, CacheConfig) == CacheConfig()


def test_every_kind_of_field() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class EveryConfig:
        whole: int = setting(1, "100% whole")
        maybe_whole: int | None = setting(None, "maybe")
        share: float = setting(0.5, "share")
        choice: Literal["a", "b"] = setting("a", "choice")
        maybe_text: str | None = setting(None, "text")
        several: tuple[int, ...] = setting((), "several")

    parser = flags.Parser(prog="x")
    flags.add_flags(parser, EveryConfig)
    assert "100% whole (default: 1)" in parser.format_help()
    line = (
        "--whole 2 --maybe-whole 3 --share 1e-3 --choice b --maybe-text t --several 4 --several 5"
    )
    arguments = parser.parse_args(shlex.split(line))
    assert flags.read(arguments, EveryConfig) == EveryConfig(
        whole=2, maybe_whole=3, share=1e-3, choice="b", maybe_text="t", several=(4, 5)
    )
