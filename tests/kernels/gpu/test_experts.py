from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from accuracy import assert_as_exact
from caravan_kernels import reference
from caravan_kernels.gpu import experts as module
from caravan_kernels.gpu import grouped_matmul
from caravan_kernels.gpu.experts import moe_experts
from caravan_kernels.gpu.grouped_matmul import grouped_gate_up
from caravan_kernels.gpu.route import route
from poison import amid_nan, poison_new_tensors, rows_amid_nan
from triton_device import DEVICE, DTYPES


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_new_tensors(monkeypatch)


def variant(swap: bool, descriptors: bool, block_m: int = 16) -> dict[str, Any]:
    tile = {"BLOCK_M": block_m, "BLOCK_N": 16, "BLOCK_K": 16, "GROUP_M": 2, "SWAP": swap}
    launch = {"descriptors": descriptors, "programs_per_sm": 1, "num_warps": 4, "num_stages": 2}
    return tile | launch


@pytest.fixture(params=[(s, d) for s in (False, True) for d in (False, True)], ids=str)
def small_tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted whatever the size, and tiles so small that programs take several."""
    launch = variant(*request.param)
    monkeypatch.setattr(grouped_matmul, "launch_parameters", lambda kernel, **sizes: launch)
    sort_always(monkeypatch)


def sort_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "launch_parameters", lambda kernel, **sizes: {"sorted": True})


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + len(shape)))


def weights(logits: Tensor, hidden: int, width: int) -> tuple[Tensor, Tensor]:
    """NaN for the experts that no token has."""
    experts = logits.shape[1]
    gate_up, down = random(1, experts, 2 * width, hidden), random(2, experts, hidden, width)
    hit = set(logits.max(-1).indices.tolist())
    unhit = [e for e in range(experts) if e not in hit]
    gate_up[unhit] = down[unhit] = float("nan")
    device, dtype = logits.device, logits.dtype
    return amid_nan(gate_up.to(device, dtype)), amid_nan(down.to(device, dtype))


def check(x: Tensor, logits: Tensor, gate_up: Tensor, down: Tensor) -> None:
    out = moe_experts(x, logits, gate_up, down)
    assert out.dtype == x.dtype
    exact = reference.moe_experts(x.double(), logits.double(), gate_up, down)
    assert_as_exact(out, reference.moe_experts(x, logits, gate_up, down), exact)


def check_random(
    tokens: int, experts: int, hidden: int, width: int, dtype: torch.dtype, *, favourite: int = -1
) -> None:
    logits = random(tokens, tokens, experts)
    if favourite >= 0:
        logits[:, favourite] = 5.0
    logits = rows_amid_nan(logits.to(DEVICE, dtype))
    x = rows_amid_nan(random(tokens, tokens, hidden).to(DEVICE, dtype))
    check(x, logits, *weights(logits, hidden, width))


# an odd number of experts, most of them empty; whole and broken blocks of tokens and widths;
# widths of whole 16 bytes, which descriptors need, and others, which are read by pointers
SHAPES = [(1, 16, 24, 40), (20, 3, 16, 32), (45, 5, 40, 24), (9, 128, 16, 8), (19, 2, 23, 13)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "experts", "hidden", "width"), SHAPES)
@pytest.mark.usefixtures("small_tiles")
def test_sorted(tokens: int, experts: int, hidden: int, width: int, dtype: torch.dtype) -> None:
    check_random(tokens, experts, hidden, width, dtype)


@pytest.mark.parametrize("favourite", [0, 2])
@pytest.mark.usefixtures("small_tiles")
def test_all_tokens_may_have_one_expert(favourite: int) -> None:
    """More blocks of tokens than a group has."""
    check_random(90, 3, 16, 24, torch.float32, favourite=favourite)


@pytest.mark.usefixtures("small_tiles")
def test_a_logit_that_is_no_number_spoils_its_token_only() -> None:
    logits = random(9, 9, 5).to(DEVICE)
    gate_up, down = (random(3, 5, *shape).to(DEVICE) for shape in ((16, 24), (24, 8)))
    x = random(9, 9, 24).to(DEVICE)
    whole = moe_experts(x, logits, gate_up, down)
    logits[4] = float("nan")
    out = moe_experts(x, logits, gate_up, down)
    assert out[4].isnan().all()
    kept = [0, 1, 2, 3, 5, 6, 7, 8]
    torch.testing.assert_close(out[kept], whole[kept])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("tokens", "experts"), [(1, 4), (3, 4), (17, 4), (33, 16), (60, 4), (120, 4), (200, 4)]
)
def test_every_rule_of_the_launch_parameters(tokens: int, experts: int, dtype: torch.dtype) -> None:
    """Few tokens on both sides of the switch, then each tile of grouped matmuls."""
    check_random(tokens, experts, 40, 24, dtype)


@pytest.mark.parametrize("tokens", [2, 40])
def test_the_score_multiplies_the_input(tokens: int) -> None:
    """SwiGLU of twice the input is not twice SwiGLU."""
    gate_up, down = torch.ones(1, 2, 1, device=DEVICE), torch.ones(1, 1, 1, device=DEVICE)
    x = torch.full((tokens, 1), 3.0, device=DEVICE)
    logits = torch.zeros(tokens, 1, device=DEVICE)  # a score of 1/2
    silu = 1.5 * torch.tensor(1.5).sigmoid()
    expected = (silu * 1.5).to(DEVICE).expand(tokens, 1)
    torch.testing.assert_close(moe_experts(x, logits, gate_up, down), expected)


def test_no_program_reads_a_tile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """More programs than tiles: one expert is hit, and the launch allows for all of them."""
    sort_always(monkeypatch)
    monkeypatch.setattr(grouped_matmul, "num_sms", lambda: 1000)
    launch = variant(swap=False, descriptors=False, block_m=64)
    monkeypatch.setattr(grouped_matmul, "launch_parameters", lambda kernel, **sizes: launch)
    check_random(7, 16, 16, 16, torch.float32, favourite=15)


def test_hidden_is_in_order_of_expert() -> None:
    logits = random(50, 50, 4).to(DEVICE)
    gate_up, _ = weights(logits, 16, 8)
    x = random(50, 50, 16).to(DEVICE)
    expert, score = reference.moe_route(logits)
    order = expert.argsort(stable=True)
    hidden = grouped_gate_up(x, gate_up, route(logits))
    rows = [
        reference.swiglu_linear((x * score[:, None])[t : t + 1], gate_up[expert[t]]) for t in order
    ]
    torch.testing.assert_close(hidden, torch.cat(rows))


REAL_TILES = {  # BLOCK_M, BLOCK_N, BLOCK_K, SWAP, num_warps, num_stages
    "16": (16, 64, 128, True, 4, 3),
    "32": (32, 64, 64, True, 4, 5),
    "64": (64, 64, 64, True, 4, 4),
    "64 tokens first": (64, 128, 64, False, 4, 3),
    "128": (128, 128, 64, False, 8, 3),
}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("descriptors", [False, True])
@pytest.mark.parametrize("tile", REAL_TILES)
def test_real_tiles(
    tile: str, descriptors: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    block_m, block_n, block_k, swap, num_warps, num_stages = REAL_TILES[tile]
    launch = variant(swap, descriptors, block_m) | {"BLOCK_N": block_n, "BLOCK_K": block_k}
    launch |= {"num_warps": num_warps, "num_stages": num_stages}
    sort_always(monkeypatch)
    monkeypatch.setattr(grouped_matmul, "launch_parameters", lambda kernel, **sizes: launch)
    check_real(700, 5, 1024, 520, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [1, 2, 8, 16, 32, 33, 64, 256, 640, 1024, 4096])
@pytest.mark.parametrize(("experts", "width"), [(16, 1024), (128, 256)])
def test_real_sizes(experts: int, width: int, tokens: int, dtype: torch.dtype) -> None:
    """The shards of TP=8 and, for the memory of the reference, TP=32."""
    check_real(tokens, experts, 5120, width, dtype)


def check_real(tokens: int, experts: int, hidden: int, width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator(DEVICE).manual_seed(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=DEVICE, dtype=dtype)

    gate_up = normal(experts, 2 * width, hidden).mul_(0.02)
    down = normal(experts, hidden, width).mul_(0.02)
    check(normal(tokens, hidden), normal(tokens, experts), gate_up, down)
