"""What a sampler has to draw, in plain NumPy: fp64, and a full sort."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MASK = (1 << 64) - 1


@dataclasses.dataclass(frozen=True)
class Row:
    """The parameters of one row."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    index: int = 0

    def seeded(self, seed: int, index: int = 0) -> Row:
        return dataclasses.replace(self, seed=seed, index=index)

    @property
    def filtered(self) -> bool:
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


FILTERS = [
    Row(),
    Row(temperature=0.5),
    Row(temperature=3.0),
    Row(top_k=1),
    Row(top_k=4),
    Row(top_p=0.6),
    Row(temperature=2.0, top_p=0.95),
    Row(min_p=0.15),
    Row(temperature=1.7, top_k=6, top_p=0.8),
    Row(top_k=5, min_p=0.05),
    Row(temperature=1.5, min_p=0.1, top_p=0.7),
    Row(temperature=2.5, top_k=7, top_p=0.9, min_p=0.12),
]

WIDE = [  # filters that keep many tokens
    Row(top_k=255),
    Row(top_k=256),
    Row(top_k=3000),
    Row(top_k=4999),
    Row(temperature=1.3, top_p=0.9),
    Row(temperature=5.0, top_p=0.999),
    Row(temperature=4.0, top_k=2000, top_p=0.6),
    Row(temperature=4.0, top_k=2000, top_p=0.02),
    Row(temperature=4.0, min_p=0.2, top_p=0.97),
    Row(temperature=4.0, top_k=400, min_p=0.35, top_p=0.97),
]


EQUAL = [  # filters, and how many of ten equal tokens they keep
    (Row(top_k=3), 3),
    (Row(temperature=9.0, top_p=0.3), 3),
    (Row(top_p=0.1), 1),
    (Row(top_p=0.31), 4),
    (Row(top_k=8, top_p=0.5), 4),
    (Row(top_k=9, top_p=1e-9), 1),
    (Row(min_p=1.0), 10),
    (Row(), 10),
]


def columns(rows: Sequence[Row], device: torch.device) -> list[Tensor]:
    """The parameters as `sample` takes them."""
    dtypes = {
        "temperature": torch.float32,
        "top_k": torch.int64,
        "top_p": torch.float64,
        "min_p": torch.float32,
        "seed": torch.int64,
        "index": torch.int64,
    }
    return [
        torch.tensor([getattr(row, name) for row in rows], dtype=dtype, device=device)
        for name, dtype in dtypes.items()
    ]


def random_logits(seed: int, *shape: int, scale: float = 2.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def mix(bits: int) -> int:
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


def uniform(seed: int, index: int) -> float:
    """SplitMix64, stepped one by one."""
    state = mix(seed & MASK)
    for _ in range(index + 1):
        state = (state + 0x9E3779B97F4A7C15) & MASK
    return (mix(state) >> 11) / 2**53


def seed_near(u: float) -> int:
    """A seed whose first uniform number is within 1e-3 of u: the ends of what a filter keeps."""
    return next(seed for seed in range(1 << 20) if abs(uniform(seed, 0) - u) < 1e-3)


def probabilities(logits_V: Tensor, row: Row, *, exactly: bool = True) -> NDArray[np.float64]:
    """Of each token, in fp64. If `exactly`, a filter that decides by less than fp32 can resolve is
    an error; among 202048 tokens some filter is always close, by one token.
    """
    logits = logits_V.double().cpu().numpy()
    with np.errstate(under="ignore"):
        p = np.exp((logits - logits.max()) / np.float32(row.temperature).item())
    near = np.abs(p - row.min_p).min() <= 5e-7 * row.min_p and row.min_p not in (0, 1)
    assert not (exactly and near), "too close"
    p[p < row.min_p] = 0
    order = np.lexsort((np.arange(len(p)), -logits))
    if row.top_k:
        p[order[row.top_k :]] = 0
    p /= p.sum()
    reached = p[order].cumsum()
    near = row.top_p != 1 and np.abs(reached - row.top_p).min() <= 1e-8
    assert not (exactly and near), "too close"
    if row.top_p < 1:
        p[order[np.argmax(reached >= row.top_p) + 1 :]] = 0
    return np.asarray(p / p.sum())


def assert_drawn(logits_V: Tensor, row: Row, token: int, *, exactly: bool = True) -> None:
    """`token` is where the uniform number falls in the inverse distribution, to fp32."""
    if row.temperature == 0:
        assert token == int(logits_V.argmax()), (row, token)
        return
    p = probabilities(logits_V, row, exactly=exactly)
    u = uniform(row.seed, row.index)
    end, margin = p.cumsum()[token], 1e-6 if exactly else 1e-5
    assert p[token] > 0, (row, token)
    assert end - p[token] - margin <= u <= end + margin, (row, token, end - p[token], u, end)


def chi_square_limit(freedom: int) -> float:
    """Exceeded once in a billion (Wilson and Hilferty's approximation; 6 sigma)."""
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + 6 * math.sqrt(spread)) ** 3
