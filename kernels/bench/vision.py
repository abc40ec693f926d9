"""Times the vision encoder against transformers' own, in pairs, and against what the CPU can do.

    python kernels/bench/vision.py --json kernels/bench/results/vision.json

The widths are the real model's (hidden 1408, 16 heads, tiles of 336 pixels: 577 positions), the
layers fewer; both encoders have the same random fp32 weights and end with the adapter, without the
projector.

Floating-point operations of a tile, two for each multiplication with its addition, where P
positions, H hidden, I intermediate, A adapter, T tokens, E numbers of a patch, L layers:

    2 * (P - 1) * E * H  +  L * (2 * P * (4 * H^2 + 2 * H * I) + 4 * P^2 * H)
    +  2 * T * (I * A + A^2)

The floor is their time at the rate of torch's fp32 matrix product of 2048 x 2048, measured here.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

from timing import pairs

from caravan.worker import environment

environment.prepare()

import torch
from results_file import write_results
from transformers import Llama4VisionConfig
from transformers.models.llama4.modeling_llama4 import Llama4VisionModel

from caravan.model.fields import Section
from caravan.model.manifest_vision import vision_parameters
from caravan.model.vision import VisionEncoder, normalized
from caravan.model.vision_architecture import VisionArchitecture

CONFIG = {"hidden_size": 1408, "image_size": 336, "vision_output_dim": 4096}
TILES = (1, 4)
PROBE = 2048  # rows and columns


def tile_flops(v: VisionArchitecture) -> int:
    """Of one tile, by the formula above."""
    positions, hidden = v.num_positions, v.hidden_size
    matrices = 4 * hidden**2 + 2 * hidden * v.intermediate_size
    layer = 2 * positions * matrices + 4 * positions**2 * hidden
    adapter = v.intermediate_size * v.adapter_size + v.adapter_size**2
    patches = 2 * (positions - 1) * v.patch_elements * hidden
    return patches + v.num_layers * layer + 2 * v.tile_tokens * adapter


def matmul_rate() -> float:
    """Operations per second of an fp32 matrix product: the best of five."""
    a, b = torch.randn(PROBE, PROBE), torch.randn(PROBE, PROBE)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - started)
    return 2 * PROBE**3 / min(times)


def encoders(num_layers: int) -> tuple[VisionEncoder, Any]:
    """Ours, whose projector is the identity, and transformers', with the same weights."""
    config = {**CONFIG, "num_hidden_layers": num_layers}
    vision = VisionArchitecture.from_section(Section(config, "vision_config."))
    theirs = Llama4VisionModel(Llama4VisionConfig(**config, attn_implementation="sdpa")).eval()
    stored = {f"vision_model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    ours = VisionEncoder(
        vision,
        outputs=vision.adapter_size,
        activation_dtype=torch.float32,
        device=torch.device("cpu"),
    )
    targets = dict(ours.named_parameters(prefix="vision"))
    for entry in vision_parameters(vision, vision.adapter_size):
        for source in entry.sources:
            if source.tensor in stored:
                targets[entry.name][source.rows].copy_(stored[source.tensor])
    # theirs ends before the projector; an attribute of another type than the class declares
    ours.projector = torch.nn.Identity()  # type: ignore[assignment]
    return ours, theirs


def measure(num_layers: int, repeats: int, rate: float) -> list[dict[str, float]]:
    """One row of the table for each number of tiles."""
    ours, theirs = encoders(num_layers)
    flops = tile_flops(ours.architecture)
    print(f"{flops / 1e9:.1f} GFLOP per tile with {num_layers} layers")
    print("tiles  ours ms/tile  theirs ms/tile  theirs/ours  % of floor")
    results = []
    for count in TILES:
        tiles = torch.randint(0, 256, (count, 336, 336, 3), dtype=torch.uint8)
        pixels = normalized(tiles).permute(0, 3, 1, 2).contiguous()
        error = (ours(tiles) - theirs(pixels).last_hidden_state).abs().max().item()
        assert error < 1e-4, error
        a, b, ratio = pairs(partial(ours, tiles), partial(theirs, pixels), repeats)
        share = flops * count / rate / a
        print(
            f"{count:5} {1e3 * a / count:13.1f} {1e3 * b / count:15.1f} {ratio:12.2f} "
            f"{100 * share:11.0f}",
            flush=True,
        )
        results.append(
            {"tiles": count, "ours_s_per_tile": a / count, "theirs_s_per_tile": b / count}
            | {"ratio": ratio, "share_of_floor": share, "gflop_per_tile": flops / 1e9}
            | {"max_difference": error}
        )
    return results


@torch.inference_mode()
def main() -> None:
    """Prints a table; writes it with what made it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rate = matmul_rate()
    print(f"float32, {torch.get_num_threads()} threads, multiplies at {rate / 1e9:.0f} GFLOP/s")
    results = measure(arguments.layers, arguments.repeats, rate)
    write_results(arguments.json, layers=arguments.layers, flop_per_s=rate, results=results)


if __name__ == "__main__":
    main()
