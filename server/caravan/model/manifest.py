"""Every parameter of the model, and the checkpoint tensors that fill it. Alone knows their names.

Parameters are in [out, in] order and have their full shapes, as on one device; `shards` says what
each tensor-parallel rank has of them. Letters: V
vocabulary, H hidden, Q query heads, K key-value heads, D head dim, E experts, I their intermediate
size, F the dense layers'.

    embed_tokens.weight              [V, H]
    layers.0.input_norm.weight       [H]
    layers.0.attention.qkv.weight    [(Q + 2K) * D, H]   q's rows, then k's, then v's
    layers.0.attention.out.weight    [H, Q * D]
    layers.0.ffn_norm.weight         [H]
    layers.0.ffn.router.weight          [E, H]           of layers with experts
    layers.0.ffn.experts.gate_up        [E, 2I, H]       gate's rows, then up's
    layers.0.ffn.experts.down           [E, H, I]
    layers.0.ffn.shared.gate_up.weight  [2I, H]
    layers.0.ffn.shared.down.weight     [H, I]
    layers.0.ffn.gate_up.weight         [2F, H]          of dense layers
    layers.0.ffn.down.weight            [H, F]
    norm.weight                      [H]
    lm_head.weight                   [V, H]              absent if tied: it is embed_tokens

`manifest_vision` lists the vision encoder's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from caravan.config import LoadFormat
from caravan.errors import CheckpointError
from caravan.model.architecture import Architecture
from caravan.model.checkpoint_files import ITEMSIZES, StoredTensor, abridged, read_headers
from caravan.model.manifest_vision import vision_parameters
from caravan.model.parameters import Parameter, Part, Source, whole

_TEXT_PREFIX = "language_model."
_VISION_PREFIXES = ("vision_model.", "multi_modal_projector.")
_COMPUTED = ".rotary_embedding."  # a buffer that some files hold; it follows from the sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A directory whose files hold exactly what its architecture needs."""

    parameters: tuple[Parameter, ...]
    stored: Mapping[str, StoredTensor]  # by Source.tensor
    num_bytes: int  # of the tensors that are loaded
    has_vision: bool  # whether the vision encoder is among them
    num_ignored: int  # tensors of a vision encoder that config.json does not describe


def parameters(architecture: Architecture, *, fused_experts: bool = True) -> tuple[Parameter, ...]:
    """All parameters in the order of the forward pass, the vision encoder's last.

    `fused_experts`: whether the checkpoint has one tensor for all experts of a layer (Meta's
    bfloat16 files) or three for each.
    """
    hidden, vocab = architecture.hidden_size, architecture.vocab_size
    result = [
        _stacked("embed_tokens.weight", "embeddings", 0, hidden, "model.", embed_tokens=vocab)
    ]
    for i, has_experts in enumerate(architecture.moe):
        result.extend(_attention(architecture, i))
        if has_experts:
            result.append(_norm(i, "ffn_norm", "shared", "post_attention_layernorm", hidden))
            result.extend(_moe(architecture, i, fused_experts=fused_experts))
        else:
            result.append(_norm(i, "ffn_norm", "dense", "post_attention_layernorm", hidden))
            result.extend(
                _mlp(i, "", "dense", hidden=hidden, inner=architecture.dense_intermediate_size)
            )
    result.append(whole("norm.weight", "head", None, "model.norm.weight", (hidden,)))
    if not architecture.tie_word_embeddings:
        result.append(_stacked("lm_head.weight", "head", 0, hidden, "", lm_head=vocab))
    if architecture.vision is not None:
        result.extend(vision_parameters(architecture.vision, hidden))
    return tuple(result)


def served_architecture(directory: Path, load_format: LoadFormat) -> Architecture:
    """The model that is built for a directory: its config.json, but only what its files hold.

    Text-only exports may keep a multimodal configuration; their model has no vision encoder. With
    dummy weights no files are read. Raises CheckpointError as the readers of both do.
    """
    architecture = Architecture.from_directory(directory)
    if load_format == "dummy" or architecture.vision is None:
        return architecture
    _, vision = _by_encoder(read_headers(directory))
    return architecture if vision else replace(architecture, vision=None)


def check_checkpoint(directory: Path, architecture: Architecture) -> Checkpoint:
    """Compares the files' headers with what the architecture needs, before any weight is read.

    If the files hold no vision encoder, none is needed; if config.json describes none, theirs is
    ignored. Raises CheckpointError that names the tensors which are missing, unknown, or of a shape
    or type that does not fit.
    """
    stored, vision = _by_encoder(read_headers(directory))
    has_vision = bool(vision) and architecture.vision is not None
    if has_vision:
        stored |= vision
    else:
        architecture = replace(architecture, vision=None)
    fused = not any(".feed_forward.experts.0." in name for name in stored)
    wanted = parameters(architecture, fused_experts=fused)
    shapes = {source.tensor: source.shape for entry in wanted for source in entry.sources}
    problems = [f"{name} is missing" for name in shapes if name not in stored]
    for name, tensor in stored.items():
        problems.extend(_problems(tensor, shapes.get(name)))
    if problems:
        raise CheckpointError(
            f"{directory}: the checkpoint does not fit its config.json: {abridged(problems)}"
        )
    return Checkpoint(
        parameters=wanted,
        stored=stored,
        num_bytes=sum(tensor.num_bytes for tensor in stored.values()),
        has_vision=has_vision,
        num_ignored=0 if has_vision else len(vision),
    )


def _by_encoder(
    headers: Mapping[str, StoredTensor],
) -> tuple[dict[str, StoredTensor], dict[str, StoredTensor]]:
    """The text model's tensors and the vision encoder's, by Source.tensor."""
    text: dict[str, StoredTensor] = {}
    vision: dict[str, StoredTensor] = {}
    for name, tensor in headers.items():
        short = name.removeprefix(_TEXT_PREFIX)
        if name.startswith(_VISION_PREFIXES):
            if _COMPUTED not in name:
                vision[name] = tensor
        elif short in text:
            raise CheckpointError(
                f"{tensor.file.parent}: the checkpoint has both {tensor.name} and "
                f"{text[short].name}; they would fill the same parameter"
            )
        else:
            text[short] = tensor
    return text, vision


def _problems(tensor: StoredTensor, shape: tuple[int, ...] | None) -> Iterator[str]:
    where = f"{tensor.name} in {tensor.file.name}"
    if shape is None:
        yield f"{where} is not part of this model"
    elif tensor.shape != shape:
        yield f"{where} has shape {list(tensor.shape)} instead of {list(shape)}"
    elif tensor.dtype not in ITEMSIZES:
        yield f"{where} is {tensor.dtype}; this release reads {', '.join(ITEMSIZES)}"


def _norm(i: int, name: str, part: Part, tensor: str, hidden: int) -> Parameter:
    return whole(
        f"layers.{i}.{name}.weight", part, None, f"model.layers.{i}.{tensor}.weight", (hidden,)
    )


def _stacked(
    name: str, part: Part, split_axis: int, columns: int, prefix: str, **rows: int
) -> Parameter:
    """A matrix made of the rows of one or more; `rows` gives each one's name and height."""
    return Parameter(
        name=name,
        shape=(sum(rows.values()), columns),
        part=part,
        split_axis=split_axis,
        sources=tuple(_stacked_sources(prefix, columns, None, rows)),
    )


def _stacked_sources(
    prefix: str, columns: int, expert: int | None, rows: Mapping[str, int]
) -> Iterator[Source]:
    start = 0
    for matrix, height in rows.items():
        yield Source(
            tensor=f"{prefix}{matrix}.weight",
            shape=(height, columns),
            rows=slice(start, start + height),
            expert=expert,
        )
        start += height


def _attention(architecture: Architecture, i: int) -> Iterator[Parameter]:
    hidden = architecture.hidden_size
    query = architecture.num_heads * architecture.head_dim
    key = architecture.num_kv_heads * architecture.head_dim
    name, prefix = f"layers.{i}.attention", f"model.layers.{i}.self_attn."
    yield _norm(i, "input_norm", "attention", "input_layernorm", hidden)
    yield _stacked(
        f"{name}.qkv.weight", "attention", 0, hidden, prefix, q_proj=query, k_proj=key, v_proj=key
    )
    yield _stacked(f"{name}.out.weight", "attention", 1, query, prefix, o_proj=hidden)


def _mlp(i: int, name: str, part: Part, *, hidden: int, inner: int) -> Iterator[Parameter]:
    """A dense layer (`name` is empty) or a shared expert."""
    parameter = f"layers.{i}.ffn.{name}"
    prefix = f"model.layers.{i}.feed_forward." + ("shared_expert." if name else "")
    yield _stacked(
        f"{parameter}gate_up.weight", part, 0, hidden, prefix, gate_proj=inner, up_proj=inner
    )
    yield _stacked(f"{parameter}down.weight", part, 1, inner, prefix, down_proj=hidden)


def _moe(architecture: Architecture, i: int, *, fused_experts: bool) -> Iterator[Parameter]:
    hidden, inner = architecture.hidden_size, architecture.expert_intermediate_size
    num_experts = architecture.num_experts
    prefix = f"model.layers.{i}.feed_forward."
    yield whole(
        f"layers.{i}.ffn.router.weight",
        "experts",
        None,
        f"{prefix}router.weight",
        (num_experts, hidden),
    )
    prefix = f"{prefix}experts."
    for name, fused_name, split_axis, columns, rows in (
        ("gate_up", "gate_up_proj", 1, hidden, {"gate_proj": inner, "up_proj": inner}),
        ("down", "down_proj", 2, inner, {"down_proj": hidden}),
    ):
        fused = f"{prefix}{fused_name}" if fused_experts else None
        yield Parameter(
            name=f"layers.{i}.ffn.experts.{name}",
            shape=(num_experts, sum(rows.values()), columns),
            part="experts",
            split_axis=split_axis,
            sources=tuple(_expert_sources(fused, prefix, num_experts, columns, rows)),
        )
    yield from _mlp(i, "shared.", "shared", hidden=hidden, inner=inner)


def _expert_sources(
    fused: str | None, prefix: str, num_experts: int, columns: int, rows: Mapping[str, int]
) -> Iterator[Source]:
    if fused is not None:
        yield Source(
            tensor=fused,
            shape=(num_experts, columns, sum(rows.values())),
            rows=slice(0, num_experts),
            transposed=True,
            matrices=len(rows),
        )
        return
    for expert in range(num_experts):
        yield from _stacked_sources(f"{prefix}{expert}.", columns, expert, rows)
