"""The network that is trained computes what the checkpoint means, and training can be resumed."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Llama4ForConditionalGeneration

from caravan.model.architecture import Architecture
from caravan.model.source import DEMO
from caravan.text.tokenizer import Tokenizer
from demo_training import mixture, shape
from demo_training.batches import Batches
from demo_training.dialogue import Dialogue
from demo_training.encoding import Encoder
from demo_training.export import export
from demo_training.labels import _labels, labelled_picture
from demo_training.network import Llama4
from demo_training.optimizer import Muon, orthogonalized
from demo_training.pictures import NUM_SHAPE_LABELS, Shape, label
from demo_training.skills import memory, sight
from demo_training.training import Phase, Trainer, tile_layout


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    size = Architecture.from_directory(DEMO).vocab_size
    return Encoder(Tokenizer.from_directory(DEMO, size), tile_layout())


@pytest.fixture(scope="module")
def network() -> Llama4:
    """With the demo's own weights."""
    network = Llama4(shape.TEXT, shape.VISION)
    network.load_checkpoint(load_file(DEMO / "model.safetensors"))
    return network


@pytest.fixture(scope="module")
def oracle() -> Llama4ForConditionalGeneration:
    return Llama4ForConditionalGeneration.from_pretrained(
        DEMO, dtype=torch.float32, attn_implementation="eager"
    )


@pytest.mark.parametrize(
    "dialogue",
    [
        sight.shapes(Random(3), "train", 3),
        sight.compare(Random(1), "train"),
        memory.lookup(Random(3), "train", sentences=70, facts=3, questions=3),
    ],
    ids=["a picture", "two pictures", "several chunks"],
)
@torch.inference_mode()
def test_it_computes_what_transformers_does(
    dialogue: Dialogue,
    encoder: Encoder,
    network: Llama4,
    oracle: Llama4ForConditionalGeneration,
) -> None:
    encoded = encoder.encode(dialogue)
    length = len(encoded.tokens)
    padded = [*encoded.tokens, *[0] * (-length % 32)]
    tiles = torch.from_numpy(np.stack(encoded.tiles)) if encoded.tiles else None
    patches = [start + i for start in encoded.tile_starts for i in range(tile_layout().tile_tokens)]
    ours = network(
        torch.tensor([padded]), tiles, torch.tensor(patches).long(), torch.arange(length)
    )
    pictures = {}
    if tiles is not None:
        pictures["pixel_values"] = (tiles.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    theirs = oracle(input_ids=torch.tensor([encoded.tokens]), **pictures).logits[0]
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)


def test_a_phase_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((DEMO / name).read_bytes())
    phase = Phase("short", 3, 1e-3, 300, {next(iter(mixture.TEXT)): 1.0})
    trainer = Trainer(tmp_path, phase)
    trainer.run(lambda line: None)
    resumed = Trainer(tmp_path, phase)
    assert resumed.step == 3
    for one, other in zip(trainer.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    export(tmp_path, "short")
    written = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert set(written) == set(load_file(DEMO / "model.safetensors"))
    Architecture.from_directory(tmp_path / "checkpoint")


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((DEMO / name).read_bytes())
    trainer = Trainer(tmp_path, Phase("short", 60, 4e-3, 200, {next(iter(mixture.TEXT)): 1.0}))
    lines: list[str] = []
    trainer.run(lines.append)
    first, last = (float(line.split("loss ")[1].split()[0]) for line in (lines[0], lines[-1]))
    assert last < 0.8 * first


def test_batches_learn_from_the_row_before(encoder: Encoder) -> None:
    batches = Batches(encoder, 16, {next(iter(mixture.PICTURES)): 1.0}, Random(0), 1500)
    batch = next(iter(batches))
    flat = batch.tokens_BT.flatten()
    assert torch.equal(flat[batch.rows + 1], batch.targets)
    assert batch.tiles is not None
    assert len(batch.patch_rows) == 16 * len(batch.tiles)
    assert (flat[batch.patch_rows] == flat[batch.patch_rows[0]]).all(), "all of them are patches"


def test_muon_orthogonalizes() -> None:
    stack = torch.randn(3, 24, 16, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalized(stack))
    assert values.min() > 0.4
    assert values.max() < 1.4
    assert torch.linalg.svdvals(stack).max() > 6


def test_muon_takes_the_step_that_it_says() -> None:
    parameter = torch.nn.Parameter(torch.zeros(32, 8))
    parameter.grad = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    Muon([parameter], lr=0.1).step()
    values = torch.linalg.svdvals(parameter.detach())
    assert values.min() > 0.1 * 2 * 0.4
    assert values.max() < 0.1 * 2 * 1.4


def test_labels_name_each_thing_once_in_a_tile() -> None:
    layout = tile_layout()
    seen = set()
    for seed in range(40):
        tiles, labels = labelled_picture(Random(seed), layout)
        assert labels.shape == (len(tiles), layout.tile_tokens)
        whole = labels[-1]  # the global tile, or the only one
        local = labels[:-1] if len(tiles) > 1 else labels
        assert set(whole.tolist()) - {0}, "every picture shows something"
        assert sorted(set(local.ravel().tolist())) == sorted(set(whole.tolist()))
        seen.add(bool(whole.max() >= NUM_SHAPE_LABELS))
    assert seen == {True, False}


def test_a_label_stands_where_the_shape_is() -> None:
    shape_ = Shape("square", "red", 0.9, 0.1, 0.1)
    labels = _labels([(shape_.x, shape_.y, label(shape_))], (256, 256), tile_layout())
    assert labels.shape == (5, 16), "two by two tiles, and the global one"
    assert labels[1].tolist() == [0, 0, 0, 2, *[0] * 12]
    assert labels[4].tolist() == [0, 0, 0, 2, *[0] * 12]
    assert not labels[[0, 2, 3]].any()
