"""Frozen configuration: every default, unit and validation rule.

A field's `help` is the text of `--help`; its flag is its name with dashes. Facts that are found at
run time (pages that fit, the context that follows) are reported in messages, never written here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from caravan.errors import ConfigError

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Device = Literal["auto", "cpu", "cuda"]
LoadFormat = Literal["auto", "dummy"]


def setting(default: Any, help: str) -> Any:  # noqa: A002, ANN401
    """A dataclass field with its help text."""
    return dataclasses.field(default=default, metadata={"help": help})


def _at_least(config: object, minimum: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < minimum:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} is {value}; it must be at least {minimum}")


def _above_zero(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} is {getattr(config, name)}; it must be above 0")


def _only(config: object, name: str, value: str, reason: str) -> None:
    given = getattr(config, name)
    if given != value:
        flag = "--" + name.replace("_", "-")
        raise ConfigError(f"{flag} is {given}; {reason}: use {value}, or leave the flag out")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What is loaded, and how."""

    model: str = setting("", "local directory or Hub id; empty: the bundled demo model")
    load_format: LoadFormat = setting("auto", "auto reads safetensors; dummy makes random weights")
    dtype: Dtype = setting("auto", "type of weights, activations and cache; auto: the checkpoint's")
    device: Device = setting("auto", "auto: cuda where there is a GPU, else cpu")
    max_model_len: int | None = setting(
        None, "longest context in tokens; default: as long as the model and the memory allow"
    )
    quantization: str = setting("none", "format the weights are quantized to")
    tensor_parallel_size: int = setting(
        1, "number of devices the model is split over: 1, 2, 4 or 8, each with a process of its own"
    )
    rank_timeout: float = setting(
        60.0, "seconds that the processes of a split model may wait for one another"
    )
    seed: int = setting(0, "seed of dummy weights")
    enforce_eager: bool = setting(
        False, "launch every kernel of a step by itself; a GPU otherwise replays graphs of them"
    )

    def __post_init__(self) -> None:
        _at_least(self, 1, "max_model_len")
        _at_least(self, 0, "seed")
        _above_zero(self, "rank_timeout")
        if self.tensor_parallel_size not in (1, 2, 4, 8):
            raise ConfigError(
                f"--tensor-parallel-size is {self.tensor_parallel_size}; it must be 1, 2, 4 or 8, "
                "because the model's 8 key-value heads are divided among the devices"
            )
        _only(self, "quantization", "none", "this release does not quantize weights")


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheConfig:
    """How much memory keys and values get."""

    block_size: int | None = setting(
        None,
        "tokens in one block of the cache; default: 64 on a GPU, which loads a block as one tile, "
        "16 on the CPU",
    )
    kv_cache_memory_bytes: int | None = setting(
        None, "bytes of the cache; default: a share of the free memory"
    )
    kv_cache_dtype: str = setting("auto", "type of keys and values; auto: --dtype")
    gpu_memory_utilization: float = setting(
        0.9, "share of a GPU's memory that weights and cache may take together"
    )

    image_cache_memory_bytes: int = setting(
        1 << 28, "bytes of the encoded tiles of pictures that are kept for their next use"
    )

    def __post_init__(self) -> None:
        _at_least(self, 1, "block_size", "kv_cache_memory_bytes", "image_cache_memory_bytes")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ConfigError(
                f"--gpu-memory-utilization is {self.gpu_memory_utilization}; "
                "it must be above 0 and at most 1"
            )
        _only(self, "kv_cache_dtype", "auto", "this release keeps keys and values in --dtype")

    def block_len(self, device: str) -> int:
        """Tokens in a block on this device, as PyTorch names it."""
        return self.block_size or (16 if device == "cpu" else 64)


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulerConfig:
    """How many requests and tokens share a step."""

    max_num_seqs: int = setting(256, "most requests that run at once")
    max_num_batched_tokens: int | None = setting(
        None,
        "most tokens in one step: a longer prompt shares several, and others go on between; "
        "default: 8192 on a GPU, 512 on the CPU",
    )
    max_num_batched_tiles: int = setting(
        4, "most tiles of pictures encoded in one step: a larger picture shares several"
    )
    async_scheduling: bool | None = setting(
        None,
        "launch a step before the tokens of the last one are fetched; default: on a GPU, where it "
        "hides the work between two steps",
    )

    def __post_init__(self) -> None:
        _at_least(self, 1, "max_num_seqs", "max_num_batched_tokens", "max_num_batched_tiles")

    def resolved(self, device: str) -> SchedulerConfig:
        """With the device's defaults in place of None; `device` as PyTorch names it."""
        on_cpu = device == "cpu"
        tokens, ahead = self.max_num_batched_tokens, self.async_scheduling
        return dataclasses.replace(
            self,
            max_num_batched_tokens=(512 if on_cpu else 8192) if tokens is None else tokens,
            async_scheduling=not on_cpu if ahead is None else ahead,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """Everything the engine process needs."""

    model: ModelConfig = ModelConfig()
    cache: CacheConfig = CacheConfig()
    scheduler: SchedulerConfig = SchedulerConfig()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageConfig:
    """Pictures in requests: how many, how large, and where they may come from."""

    limit_images_per_prompt: int = setting(10, "most images in one request; 0: none")
    allowed_media_domains: tuple[str, ...] = setting(
        (), "host that images may be downloaded from, and no other; may be given several times"
    )
    allowed_private_hosts: tuple[str, ...] = setting(
        (), "host that may have a private address; may be given several times"
    )
    max_image_bytes: int = setting(20 << 20, "largest image file in bytes")
    max_image_pixels: int = setting(40_000_000, "largest image in pixels")
    image_timeout: float = setting(
        10.0, "seconds that one image may take to download, or to decode"
    )

    def __post_init__(self) -> None:
        _at_least(self, 0, "limit_images_per_prompt")
        _at_least(self, 1, "max_image_bytes", "max_image_pixels")
        _above_zero(self, "image_timeout")


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiConfig:
    """The HTTP side."""

    host: str = setting("127.0.0.1", "address to listen on")
    port: int = setting(8000, "port to listen on; 0: a free one")
    api_key: tuple[str, ...] = setting((), "key that clients must send; may be given several times")
    ui: bool = setting(True, "serve a chat page at /")
    served_model_name: str | None = setting(None, "name of the model in the API")
    max_queued_tokens: int = setting(
        1 << 20, "most prompt tokens that wait for their first output token; more: 503"
    )
    max_queued_requests: int = setting(
        2048, "most requests that wait for their first output token; more: 503"
    )
    max_body_bytes: int = setting(32 << 20, "largest request body in bytes; more: 413")
    shutdown_timeout: float = setting(
        30.0, "seconds that open requests get to finish after SIGTERM"
    )
    ignore_unknown_fields: bool = setting(
        False,
        "ignore request fields that this server does not know or obey, and name them in a header "
        "of the answer; otherwise such a request gets 400",
    )
    ping_interval: float = setting(
        15.0, "seconds between keep-alive comments on a stream without tokens"
    )
    engine_timeout: float = setting(
        120.0, "seconds without a sign of the engine after which /health answers 503"
    )

    def __post_init__(self) -> None:
        _at_least(self, 1, "max_queued_tokens", "max_queued_requests", "max_body_bytes")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port is {self.port}; it must be between 0 and 65535")
        _above_zero(self, "ping_interval", "engine_timeout")
        if self.shutdown_timeout < 0:
            raise ConfigError(
                f"--shutdown-timeout is {self.shutdown_timeout}; it must be at least 0"
            )
        if "" in self.api_key:
            raise ConfigError("--api-key is empty; give a key, or leave the flag out")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """One process's whole configuration; constructors take the part they use, never this."""

    engine: EngineConfig = EngineConfig()
    api: ApiConfig = ApiConfig()
    images: ImageConfig = ImageConfig()
