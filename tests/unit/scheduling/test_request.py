from __future__ import annotations

import pytest

from caravan.kv_layout import KVLayout
from caravan.messages import Admission, Generate, Sampling
from caravan.scheduling.page_pool import PagePool
from caravan.scheduling.page_tables import PageTables
from caravan.scheduling.request import Request

LAYOUT = KVLayout(
    block_len=4, chunk_len=8, full_slices=1, chunked_slices=1, slice_layers=1, page_bytes=1
)


def arrived(generate: Generate) -> Request:
    return Request.arrived(generate, 0, PageTables(LAYOUT, PagePool(10)))


@pytest.mark.parametrize(
    ("drawn", "finishes"),
    [
        ([1, 2, 3], [None, None, "length"]),
        ([1, 9], [None, "stop"]),
        ([8], ["stop"]),
        ([1, 2, 9], [None, None, "stop"]),
    ],
    ids=["max_tokens", "stop", "at once", "stop at max_tokens"],
)
def test_a_request_ends_by_stop_token_or_length(
    drawn: list[int], finishes: list[str | None]
) -> None:
    request = arrived(Generate(1, [9, 9], Sampling(max_tokens=3, stop_token_ids=(8, 9))))
    request.num_drawn = len(drawn)
    assert [request.append(token) for token in drawn] == finishes
    assert request.num_drawn == 0


def test_missing_tokens_are_known_or_drawn_and_not_computed() -> None:
    request = arrived(Generate(1, [5, 6, 7], Sampling(max_tokens=2)))
    assert (request.num_computed, request.num_missing) == (0, 3)
    request.tables.grow(3)
    assert (request.num_computed, request.num_missing) == (3, 0)
    request.num_drawn = 1
    assert (request.num_computed, request.num_missing) == (3, 1)
    request.append(8)
    assert (request.num_computed, request.num_missing) == (3, 1)


def test_the_last_token_that_may_be_drawn_is_not_missing() -> None:
    request = arrived(Generate(1, [5, 6, 7], Sampling(max_tokens=2)))
    request.tables.grow(4)
    request.num_drawn = 2
    assert (request.num_known, request.num_missing) == (5, 0)


def test_neither_the_message_nor_the_admission_shares_the_token_list() -> None:
    generate = Generate(1, [5], Sampling(max_tokens=3))
    request = arrived(generate)
    admission = request.admission()
    request.append(6)
    assert generate.prompt == [5]
    assert admission == Admission(1, [5], 1, generate.sampling)
    assert request.admission() == Admission(1, [5, 6], 1, generate.sampling)
