"""What a parameter of the model is, and which tensors of a checkpoint fill it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Part = Literal["embeddings", "attention", "experts", "shared", "dense", "head", "vision"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A checkpoint tensor, and the rows of a parameter that it fills."""

    tensor: str  # without the prefix that multimodal checkpoints have
    shape: tuple[int, ...]  # in the checkpoint
    rows: slice  # along the parameter's first axis, or its second if `expert` is set
    expert: int | None = None  # index along the first axis; None: the tensor has all of them
    transposed: bool = False  # the tensor's last two axes are the other way round
    matrices: int = 1  # that lie side by side in it, along the axis that ranks divide


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter of the model."""

    name: str
    shape: tuple[int, ...]
    part: Part
    split_axis: int | None  # what tensor-parallel ranks divide among them; None: each has all
    sources: tuple[Source, ...]

    def num_elements(self, tp_size: int = 1) -> int:
        """Elements on one rank."""
        elements = math.prod(self.shape)
        return elements if self.split_axis is None else elements // tp_size


def whole(
    name: str, part: Part, split_axis: int | None, tensor: str, shape: tuple[int, ...]
) -> Parameter:
    """A parameter that is one tensor as it is stored."""
    source = Source(tensor=tensor, shape=shape, rows=slice(0, shape[0]))
    return Parameter(name=name, shape=shape, part=part, split_axis=split_axis, sources=(source,))
