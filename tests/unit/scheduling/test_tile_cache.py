from __future__ import annotations

from caravan.config import SchedulerConfig
from caravan.messages import Generate, Image, PlacedImage, Sampling, SegmentTile
from caravan.scheduling.scheduler import Scheduler
from caravan.scheduling.tile_cache import TileCache, TileKey
from caravan.tiles import TileSlots
from unit.scheduling.stepping import layout, spans, step

A, B, C = (TileKey(name, 0) for name in (b"a", b"b", b"c"))


def test_the_tile_used_least_recently_makes_room() -> None:
    cache = TileCache(2)
    first, second = cache.add(A), cache.add(B)
    cache.release_step()
    assert cache.find(A) == first
    cache.release_step()
    assert cache.add(C) == second
    assert cache.find(B) is None
    assert cache.find(A) == first


def test_what_the_step_shows_makes_no_room() -> None:
    cache = TileCache(2)
    cache.add(A)
    cache.release_step()
    cache.add(B)
    cache.find(A)
    assert cache.add(C) is None
    cache.release_step()
    assert cache.add(C) is not None


def test_no_slots() -> None:
    assert TileCache(0).add(A) is None


def scheduler(*, slots: int = 8, tile_budget: int = 2, budget: int = 64) -> Scheduler:
    config = SchedulerConfig(max_num_batched_tokens=budget, max_num_batched_tiles=tile_budget)
    return Scheduler(layout(chunk_len=16), 1000, config, TileSlots(slots, tile_tokens=4))


def shown(rid: int, starts: list[int], length: int, image: int = 0) -> Generate:
    return Generate(rid, [1] * length, Sampling(max_tokens=1), [PlacedImage(image, starts)])


def image(num_tiles: int, image_id: int = 0, key: bytes = b"k", uses: int = 1) -> Image:
    return Image(image_id, key, [bytes([i]) for i in range(num_tiles)], uses)


def test_a_large_picture_shares_several_steps_and_others_go_on() -> None:
    it = scheduler(tile_budget=2)
    it.add(Generate(0, [1, 2], Sampling(max_tokens=9)))
    step(it)
    it.add_image(image(5))
    it.add(shown(1, [1, 6, 11, 20, 25], 30))
    first, second, third = step(it), step(it), step(it)
    assert spans(first) == [(0, 2, 1), (1, 0, 11)]
    assert spans(second) == [(0, 3, 1), (1, 11, 5), (1, 16, 9)]
    assert spans(third) == [(0, 4, 1), (1, 25, 5)]
    assert [len(plan.tiles) for plan in (first, second, third)] == [2, 2, 1]
    assert [tile.pixels for plan in (first, second, third) for tile in plan.tiles] == [
        bytes([i]) for i in range(5)
    ]


def test_nobody_is_admitted_behind_a_request_that_waits_for_tiles() -> None:
    it = scheduler(tile_budget=1)
    it.add_image(image(2))
    it.add(shown(0, [0, 5], 9))
    it.add(Generate(1, [1], Sampling(max_tokens=1)))
    assert spans(step(it)) == [(0, 0, 5)]
    assert spans(step(it)) == [(1, 0, 1), (0, 5, 4)]


def test_a_tile_is_named_by_every_segment_that_shows_a_part_of_it() -> None:
    it = scheduler(budget=7)
    it.add_image(image(2))
    it.add(shown(0, [5, 14], 20))
    plans = [step(it) for _ in range(3)]
    assert [[segment.tiles for segment in plan.segments] for plan in plans] == [
        [[SegmentTile(5, 0)]],
        [[SegmentTile(5, 0)]],
        [[SegmentTile(14, 1)], [SegmentTile(14, 1)]],
    ]
    assert [len(plan.tiles) for plan in plans] == [1, 0, 1]


def test_a_picture_that_comes_again_is_not_encoded_again() -> None:
    it = scheduler()
    for rid, key in enumerate((b"k", b"k", b"other")):
        it.add_image(image(1, rid, key))
        it.add(shown(rid, [1], 6, rid))
        plan = step(it)
        assert len(plan.tiles) == (key != b"k" or rid == 0)
    stats = it.stats()
    assert (stats.encoded_tiles, stats.reused_tiles) == (2, 1)


def test_several_requests_share_one_picture_and_it_is_then_forgotten() -> None:
    it = scheduler(budget=100)
    it.add_image(image(1, uses=2))
    it.add(shown(0, [1], 6))
    it.add(shown(1, [1], 6))
    assert len(step(it).tiles) == 1
    it.add_image(image(1))  # the id is free again


def test_one_slot_is_enough() -> None:
    it = scheduler(slots=1, tile_budget=4)
    it.add_image(image(3))
    it.add(shown(0, [0, 5, 10], 16))
    steps = 0
    while it.has_work:
        assert len(step(it).tiles) == 1
        steps += 1
    assert steps == 3
