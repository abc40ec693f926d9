"""What the model is given for one step: tokens, tables, and the memory of keys and values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from caravan_kernels import PagedSegments


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInput:
    """All tokens of a step, one segment after another.

    T tokens, S segments that sample, I patches of pictures, H hidden size
    """

    token_ids_T: Tensor  # int64
    positions_T: Tensor  # int64, absolute
    sample_rows_S: Tensor | None  # int64: the rows of T whose logits are wanted; None: all
    chunked: PagedSegments | None  # None if the model has no such layers
    full: PagedSegments | None
    image_rows_I: Tensor | None = None  # int64: the rows of T that show a picture, not a word
    image_features_IH: Tensor | None = None  # what stands there instead of an embedding


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's keys and values: every page of the arena, its own layer's part of it."""

    k_PBKD: Tensor
    v_PBKD: Tensor
    slice_index: int  # which of the kind's page tables applies
