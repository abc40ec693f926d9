"""The vision encoder against transformers', and against what it could be mistaken for.

N tiles, S side of a tile, C color channels
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from caravan.kv_layout import KVLayout
from caravan.model.architecture import Architecture
from caravan.model.llama4 import Llama4
from caravan.model.rope import vision_rope_table
from caravan.model.vision import normalized, pixel_shuffle, to_patches
from caravan.model.vision_architecture import VisionArchitecture
from caravan.model.weights import load_weights
from tiny_llama4 import VISIONS, load_multimodal_oracle


@functools.cache
def load_once(directory: Path) -> Any:
    return load_multimodal_oracle(directory)


@pytest.fixture(params=VISIONS)
def directory(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("scout", multimodal=True, vision=request.param)


def load(directory: Path, dtype: torch.dtype = torch.float32) -> Llama4:
    architecture = Architecture.from_directory(directory)
    model = Llama4(architecture, dtype=dtype, device=torch.device("cpu"), max_model_len=64)
    load_weights(dict(model.named_parameters()), directory, architecture, lambda done, total: None)
    return model


def vision_of(directory: Path) -> VisionArchitecture:
    vision = Architecture.from_directory(directory).vision
    assert vision is not None
    return vision


def random_tiles(directory: Path, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = vision_of(directory).tile_size
    shape = (count, size, size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@torch.inference_mode()
def expected(directory: Path, tiles_NSSC: Tensor) -> Tensor:
    """The rows that transformers puts in the place of image tokens, from fp32 pixels."""
    model = load_once(directory)
    pixels = normalized(tiles_NSSC).permute(0, 3, 1, 2)
    projected: Tensor = model.multi_modal_projector(model.vision_model(pixels).last_hidden_state)
    return projected


@pytest.mark.parametrize("count", [1, 5])
def test_equals_transformers(count: int, directory: Path) -> None:
    tiles = random_tiles(directory, count)
    features = load(directory).encode_tiles(tiles)
    vision = vision_of(directory)
    assert features.shape == (count, vision.tile_tokens, 64)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected(directory, tiles), atol=1e-4, rtol=0)


def test_rows_are_as_large_as_word_embeddings(directory: Path) -> None:
    """Or comparing logits would not show whether they are right."""
    features = load(directory).encode_tiles(random_tiles(directory, 4))
    assert 0.3 < features.std().item() < 3
    between = (features[0] - features[1]).std().item()
    assert between > 0.2 * features.std().item()


def swapped_axes(table_PF: Tensor) -> Tensor:
    """Rows where columns belong."""
    return torch.cat(table_PF.chunk(2, dim=1)[::-1], dim=1)


@pytest.mark.parametrize("mistake", ["x and y", "class token first", "no rope"])
def test_mistakes_about_positions_would_show(mistake: str, directory: Path) -> None:
    model, tiles = load(directory), random_tiles(directory, 1)
    encoder = model.vision
    assert encoder is not None
    if mistake == "x and y":
        encoder.rope_PF = swapped_axes(encoder.rope_PF)
    elif mistake == "class token first":
        encoder.rope_PF = encoder.rope_PF.roll(1, dims=0)
        encoder.positional_embedding.data = encoder.positional_embedding.roll(1, dims=0)
    else:
        encoder.rope_PF = torch.ones_like(encoder.rope_PF)
    error = (model.encode_tiles(tiles) - expected(directory, tiles)).abs().max().item()
    assert error > 0.05


@pytest.mark.parametrize("change", [(0, 2, 1, 3), None], ids=["transposed", "channels"])
def test_mistakes_about_pixels_would_show(change: tuple[int, ...] | None, directory: Path) -> None:
    tiles = random_tiles(directory, 1)
    wrong = tiles.flip(3) if change is None else tiles.permute(change)
    features = load(directory).encode_tiles(wrong.contiguous())
    assert (features - expected(directory, tiles)).abs().max().item() > 0.05


def test_every_parameter_matters(directory: Path) -> None:
    model, tiles = load(directory), random_tiles(directory, 1)
    before = model.encode_tiles(tiles)
    for name, parameter in model.named_parameters():
        if not name.startswith("vision."):
            continue
        saved = parameter.clone()
        parameter.data.mul_(1.5)
        change = (model.encode_tiles(tiles) - before).abs().max().item()
        assert change > 1e-3, name
        parameter.data.copy_(saved)
    assert model.encode_tiles(tiles).equal(before)


def test_a_tile_does_not_depend_on_the_others(directory: Path) -> None:
    model, tiles = load(directory), random_tiles(directory, 7)
    together = model.encode_tiles(tiles)
    alone = torch.cat([model.encode_tiles(tile[None]) for tile in tiles])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)
    others = model.encode_tiles(torch.cat([tiles[:1], random_tiles(directory, 6, seed=1)]))
    torch.testing.assert_close(together[0], others[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_low_precision_weights(dtype: torch.dtype, allowed: float, directory: Path) -> None:
    """On the CPU only the weights are rounded: one part in 256, or in 2048, and 2 layers of it."""
    tiles = random_tiles(directory, 3)
    model = load(directory, dtype)
    assert model.vision is not None
    assert model.vision.rope_PF.dtype == torch.complex64
    features, exact = model.encode_tiles(tiles), expected(directory, tiles)
    assert features.dtype == torch.float32
    assert ((features - exact).norm() / exact.norm()).item() < allowed


def test_rope_table_is_transformers_own(directory: Path) -> None:
    table = vision_rope_table(vision_of(directory))
    theirs = load_once(directory).vision_model.rotary_embedding.freqs_ci[:, 0]
    assert table.dtype == torch.complex64
    torch.testing.assert_close(table, theirs, atol=2e-6, rtol=0)
    assert (table[-1] == 1).all()


def test_patches_are_those_of_unfold() -> None:
    tiles = torch.randint(0, 256, (2, 6, 6, 3), dtype=torch.uint8)
    unfolded = torch.nn.Unfold(2, stride=2)(tiles.permute(0, 3, 1, 2).float())
    assert to_patches(tiles, 2).float().equal(unfolded.transpose(1, 2))


@pytest.mark.parametrize(("side", "shuffle"), [(4, 2), (6, 2), (6, 3), (3, 1)])
def test_pixel_shuffle_puts_squares_together(side: int, shuffle: int) -> None:
    patches = torch.arange(side**2)[None, :, None].expand(1, -1, 2)
    first = pixel_shuffle(patches, shuffle)[0, 0].view(shuffle, shuffle, 2)
    for y in range(shuffle):
        for x in range(shuffle):
            assert first[y, x].tolist() == [y * side + x] * 2


def test_text_only_has_no_encoder(tiny_checkpoint: Callable[..., Path]) -> None:
    model = load(tiny_checkpoint("scout"))
    assert model.vision is None
    with pytest.raises(AssertionError, match="text only"):
        model.encode_tiles(torch.zeros(1, 56, 56, 3, dtype=torch.uint8))


def test_pixels_are_normalized_as_llama_models_does() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    values = normalized(pixels)
    assert values.dtype == torch.float32
    assert values[[0, 255]].tolist() == [-1, 1]
    exact = (pixels.double() / 255 - 0.5) / 0.5
    torch.testing.assert_close(values.double(), exact, atol=2e-7, rtol=0)


def logits(model: Llama4, ids: list[int], image_rows: list[int], features: Tensor) -> Tensor:
    """Of every position of one prompt, with features at some rows; one step, without an engine."""
    from caravan.messages import Admission, Sampling, Segment
    from caravan.worker.batch import StepMemory, lay_out, step_input
    from caravan.worker.kv_cache import allocate_arena, layer_caches
    from caravan.worker.requests import Requests

    architecture, cpu = model.architecture, torch.device("cpu")
    layout: KVLayout = architecture.kv_layout(4, 4)
    pages = layout.pages_held(len(ids))
    arena = allocate_arena(
        (architecture.num_kv_heads, architecture.head_dim), layout, pages, torch.float32, cpu
    )
    requests = Requests(layout, pages, 1, cpu)
    requests.admit(Admission(0, ids, len(ids), Sampling(max_tokens=1)))
    blocks = list(range(pages))
    num_full = layout.full_slices * -(-len(ids) // layout.block_len)
    segment = Segment(0, 0, len(ids), blocks[:num_full], blocks[num_full:], samples=True)
    sent = {
        name: torch.from_numpy(array)
        for name, array in lay_out([segment], requests, layout).arrays.items()
    }
    seats = torch.zeros(2, dtype=torch.int64)
    memory = StepMemory(layout, architecture.num_kv_heads, requests, seats, tiles=None)
    with_image = replace(
        step_input(sent, 0, memory),
        sample_rows_S=torch.arange(len(ids)),
        image_rows_I=torch.tensor(image_rows),
        image_features_IH=features,
    )
    found: Tensor = model(with_image, layer_caches(architecture, layout, arena))
    return found


def test_features_stand_where_words_would(directory: Path) -> None:
    """One step of the whole model with a picture, within one chunk."""
    model, tiles = load(directory), random_tiles(directory, 2)
    patch = load_once(directory).config.image_token_index
    num_patches = vision_of(directory).tile_tokens
    ids = [72, 105, *[patch] * num_patches, 44, *[patch] * num_patches, 33, 10]
    rows = [i for i, token in enumerate(ids) if token == patch]
    assert len(ids) <= 32
    features = model.encode_tiles(tiles).flatten(0, 1)
    with torch.inference_mode():
        theirs = load_once(directory)(
            input_ids=torch.tensor([ids]),
            pixel_values=normalized(tiles).permute(0, 3, 1, 2),
            use_cache=False,
        ).logits[0]
    ours = logits(model, ids, rows, features)
    torch.testing.assert_close(ours.log_softmax(-1), theirs.log_softmax(-1), atol=2e-4, rtol=1e-4)
    other = logits(model, ids, rows, features.flip(0))
    assert (ours - other)[-1].abs().max().item() > 0.5
