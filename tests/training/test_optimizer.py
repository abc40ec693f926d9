"""Muon: its matrices are orthogonal, and processes that share the work find the same."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from demo_training.optimizer import Muon, orthogonalized

_SHAPES = ((6, 4), (6, 4), (6, 4), (3, 5))


def test_singular_values_come_near_one() -> None:
    stack = torch.randn(5, 12, 20, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalized(stack))
    assert values.min() > 0.6, values.min()
    assert values.max() < 1.3, values.max()


def updated() -> list[torch.Tensor]:
    """Matrices after a step."""
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in _SHAPES]
    for matrix in matrices:
        matrix.grad = torch.randn(matrix.shape, generator=generator)
    Muon(matrices, lr=0.1, weight_decay=0.1).step()
    return [matrix.detach() for matrix in matrices]


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)  # a forked process has no threads of a pool
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(updated(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_processes_that_share_the_matrices_make_the_same_step(tmp_path: Path) -> None:
    arguments = (str(tmp_path),)
    mp.start_processes(one_of_two, arguments, nprocs=2, start_method="fork")  # type: ignore[attr-defined, no-untyped-call]
    for rank in (0, 1):
        for found, alone in zip(torch.load(tmp_path / f"{rank}.pt"), updated(), strict=True):
            torch.testing.assert_close(found, alone)
