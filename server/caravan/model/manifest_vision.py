"""The vision encoder's parameters, and the checkpoint tensors that fill them.

Every rank holds all of them. Letters: H hidden, P patches of a tile and the class token, I
intermediate size, A adapter, T the text model's hidden size.

    vision.patch_embedding.weight           [H, 3 * patch_size^2]
    vision.class_embedding                  [H]
    vision.positional_embedding             [P, H]
    vision.norm_pre.{weight,bias}           [H]
    vision.layers.0.attention_norm.{weight,bias}    [H]
    vision.layers.0.attention.qkv.{weight,bias}     [3H, H] and [3H]    q's rows, then k's, v's
    vision.layers.0.attention.out.{weight,bias}     [H, H] and [H]
    vision.layers.0.mlp_norm.{weight,bias}          [H]
    vision.layers.0.fc1.{weight,bias}               [I, H] and [I]
    vision.layers.0.fc2.{weight,bias}               [H, I] and [H]
    vision.norm_post.{weight,bias}          [H]
    vision.adapter.fc1.weight               [A, I]
    vision.adapter.fc2.weight               [A, A]
    vision.projector.weight                 [T, A]
"""

from __future__ import annotations

from collections.abc import Iterator

from caravan.model.parameters import Parameter, Source, whole
from caravan.model.vision_architecture import VisionArchitecture

_MODEL = "vision_model."


def vision_parameters(vision: VisionArchitecture, text_hidden_size: int) -> Iterator[Parameter]:
    """All of them in the order of the forward pass."""
    hidden, adapter = vision.hidden_size, vision.adapter_size
    patch = (hidden, vision.patch_elements)
    positions = (vision.num_positions, hidden)
    yield _one("patch_embedding.weight", f"{_MODEL}patch_embedding.linear.weight", patch)
    yield _one("class_embedding", f"{_MODEL}class_embedding", (hidden,))
    yield _one("positional_embedding", f"{_MODEL}positional_embedding_vlm", positions)
    yield from _norm("norm_pre", f"{_MODEL}layernorm_pre", hidden)
    for i in range(vision.num_layers):
        yield from _layer(vision, i)
    yield from _norm("norm_post", f"{_MODEL}layernorm_post", hidden)
    mlp = f"{_MODEL}vision_adapter.mlp."
    yield _one("adapter.fc1.weight", f"{mlp}fc1.weight", (adapter, vision.intermediate_size))
    yield _one("adapter.fc2.weight", f"{mlp}fc2.weight", (adapter, adapter))
    projector = (text_hidden_size, adapter)
    yield _one("projector.weight", "multi_modal_projector.linear_1.weight", projector)


def _layer(vision: VisionArchitecture, i: int) -> Iterator[Parameter]:
    hidden, inner = vision.hidden_size, vision.intermediate_size
    name, tensor = f"layers.{i}.", f"{_MODEL}model.layers.{i}."
    yield from _norm(f"{name}attention_norm", f"{tensor}input_layernorm", hidden)
    qkv = tuple(f"{tensor}self_attn.{matrix}_proj" for matrix in "qkv")
    yield from _affine(f"{name}attention.qkv", qkv, hidden, hidden)
    yield from _affine(f"{name}attention.out", (f"{tensor}self_attn.o_proj",), hidden, hidden)
    yield from _norm(f"{name}mlp_norm", f"{tensor}post_attention_layernorm", hidden)
    yield from _affine(f"{name}fc1", (f"{tensor}mlp.fc1",), hidden, inner)
    yield from _affine(f"{name}fc2", (f"{tensor}mlp.fc2",), inner, hidden)


def _one(name: str, tensor: str, shape: tuple[int, ...]) -> Parameter:
    return whole(f"vision.{name}", "vision", None, tensor, shape)


def _norm(name: str, tensor: str, hidden: int) -> Iterator[Parameter]:
    for kind in ("weight", "bias"):
        yield _one(f"{name}.{kind}", f"{tensor}.{kind}", (hidden,))


def _affine(name: str, tensors: tuple[str, ...], inputs: int, outputs: int) -> Iterator[Parameter]:
    """Weight and bias of one projection, or of several of equal shape, one below the other."""
    for kind, columns in (("weight", (inputs,)), ("bias", ())):
        sources = tuple(
            Source(
                tensor=f"{tensor}.{kind}",
                shape=(outputs, *columns),
                rows=slice(i * outputs, (i + 1) * outputs),
            )
            for i, tensor in enumerate(tensors)
        )
        yield Parameter(
            name=f"vision.{name}.{kind}",
            shape=(len(tensors) * outputs, *columns),
            part="vision",
            split_axis=None,
            sources=sources,
        )
