"""Which part of each parameter a tensor-parallel rank holds, and where that is in the files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from caravan.model.parameters import Parameter, Source

Box = tuple[slice, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A box of a checkpoint tensor, and the box of a rank's parameter that it fills."""

    tensor: str  # Source.tensor
    stored: Box
    expert: int | None  # index along the parameter's first axis, before `target`
    target: Box
    transposed: bool  # the last two axes of `stored` are those of `target` the other way round

    @property
    def num_elements(self) -> int:
        """Elements that are read."""
        return math.prod(part.stop - part.start for part in self.stored)


def local_shape(parameter: Parameter, size: int) -> tuple[int, ...]:
    """The parameter's shape on each of `size` ranks."""
    return tuple(
        length // size if axis == parameter.split_axis else length
        for axis, length in enumerate(parameter.shape)
    )


def pieces(parameter: Parameter, rank: int, size: int) -> Iterator[Piece]:
    """What a rank reads of a parameter's sources.

    Matrices that lie side by side in one parameter are divided each by itself: a rank has its part
    of the gate and its part of `up`, one behind the other.
    """
    for source in parameter.sources:
        axis = parameter.split_axis
        if axis is not None and source.expert is not None:
            axis -= 1
        if axis is None or size == 1:
            yield _piece(source, [slice(0, n) for n in _shape(source)], source.rows)
        else:
            yield from _shares(source, axis, rank, size)


def _shares(source: Source, axis: int, rank: int, size: int) -> Iterator[Piece]:
    shape = _shape(source)
    width = shape[axis] // source.matrices
    share = width // size
    for matrix in range(source.matrices):
        box = [slice(0, n) for n in shape]
        begin = matrix * width + rank * share
        box[axis] = slice(begin, begin + share)
        if axis == 0:
            start = source.rows.start // size
            yield _piece(source, box, slice(start, start + share))
        else:
            columns = slice(matrix * share, (matrix + 1) * share)
            yield _piece(source, box, source.rows, axis, columns)


def _shape(source: Source) -> tuple[int, ...]:
    """The source's shape with the parameter's order of axes."""
    if not source.transposed:
        return source.shape
    *first, inputs, outputs = source.shape
    return (*first, outputs, inputs)


def _piece(
    source: Source, box: list[slice], rows: slice, axis: int = 0, columns: slice | None = None
) -> Piece:
    target = [slice(0, part.stop - part.start) for part in box]
    target[0] = rows
    if columns is not None:
        target[axis] = columns
    if source.transposed:
        box = [*box[:-2], box[-1], box[-2]]
    return Piece(
        tensor=source.tensor,
        stored=tuple(box),
        expert=source.expert,
        target=tuple(target),
        transposed=source.transposed,
    )
