"""Random traffic over tiny pools, against `simulated_worker`: thousands of steps, seeded."""

from __future__ import annotations

import random
from collections import deque

import pytest

from caravan.config import SchedulerConfig
from caravan.kv_layout import KVLayout
from caravan.messages import Generate, Image, PlacedImage, Sampling, StepPlan, StepResult
from caravan.scheduling.scheduler import Scheduler
from caravan.tiles import TileSlots
from unit.scheduling.simulated_worker import (
    TILE_TOKENS,
    VOCABULARY,
    SimulatedWorker,
    next_token,
    patch_token,
)


def expected_output(layout: KVLayout, generate: Generate, images: dict[int, Image]) -> list[int]:
    """What a request alone on an endless machine generates."""
    tokens = list(generate.prompt)
    for placed in generate.images:
        pixels = images[placed.image_id].tiles
        for tile, start in zip(pixels, placed.tile_starts, strict=True):
            tokens[start : start + TILE_TOKENS] = [
                patch_token(tile, offset) for offset in range(TILE_TOKENS)
            ]
    for _ in range(generate.sampling.max_tokens):
        tokens.append(next_token(layout, tokens))
        if tokens[-1] in generate.sampling.stop_token_ids:
            break
    return tokens[len(generate.prompt) :]


class Traffic:
    """A scheduler and a worker under random arrivals and aborts."""

    def __init__(self, seed: int) -> None:
        self.random = rng = random.Random(seed)
        full, chunked = rng.choice([(1, 3), (1, 3), (1, 1), (2, 1), (0, 1), (1, 0), (0, 3)])
        self.layout = KVLayout(
            block_len=rng.randint(1, 6),
            chunk_len=rng.randint(2, 20) if chunked else 60,
            full_slices=full,
            chunked_slices=chunked,
            slice_layers=1,
            page_bytes=1,
        )
        self.longest = rng.choice([rng.randint(2, 60), 60])
        self.prompt_share = rng.choice([0.2, 0.2, 1.0])
        self.num_pages = self.layout.pages_needed(self.longest) + rng.choice([0, 1, 20, 60])
        max_num_seqs = rng.randint(1, 8)
        self.token_budget = rng.choice([1, 2, 7, 20, 64])
        self.config = SchedulerConfig(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=self.token_budget,
            max_num_batched_tiles=rng.choice([1, 2, 5]),
        )
        self.num_slots = rng.choice([1, 2, 8])
        slots = TileSlots(self.num_slots, TILE_TOKENS)
        self.scheduler = Scheduler(self.layout, self.num_pages, self.config, slots)
        self.images: dict[int, Image] = {}
        self.worker = SimulatedWorker(self.layout, self.num_pages)
        self.has_priorities = rng.random() < 0.3
        self.lag = rng.choice([0, 0, 1])  # plans made before the first one's update
        self.in_flight: deque[tuple[StepPlan, StepResult]] = deque()
        self.arrived: dict[int, Generate] = {}
        self.aborted: set[int] = set()
        self.output: dict[int, list[int]] = {}
        self.finished: dict[int, str] = {}
        self.computed_tokens = 0
        self.shared_tokens = 0

    def arrive(self) -> None:
        """One request, or a family of several with the same prompt."""
        total = self.random.randint(2, self.longest)
        num_prompt = self.random.randint(1, max(1, int((total - 1) * self.prompt_share)))
        prompt = [self.random.randrange(VOCABULARY) for _ in range(num_prompt)]
        size = self.random.choice([1, 1, 1, 2, 5])
        priority = self.random.choice([0, 1, 2]) if self.has_priorities else 0
        images = self._show_images(num_prompt, size)
        for image_id in {placed.image_id for placed in images}:
            self.scheduler.add_image(self.images[image_id])
        family = 1000 - len(self.arrived)
        for rid in range(family, family - size, -1):  # falling: the order is not that of the ids
            generate = Generate(
                rid,
                prompt,
                Sampling(
                    max_tokens=self.random.randint(1, total - num_prompt),
                    stop_token_ids=tuple(
                        self.random.sample(range(VOCABULARY), self.random.choice([0, 0, 2]))
                    ),
                ),
                images,
                group=family if size > 1 else None,
                priority=priority,
            )
            if size > 1:
                self.worker.families[rid] = -family
            self.arrived[rid] = generate
            self.output[rid] = []
            self.scheduler.add(generate)

    def _show_images(self, num_prompt: int, num_requests: int) -> list[PlacedImage]:
        """Pictures of one or two tiles from a few that all requests share, at random places."""
        placed, at = [], 0
        while self.random.random() < 0.8:
            name = self.random.randrange(4)
            start = at + self.random.randrange(3)
            starts = [start + i * (TILE_TOKENS + 1) for i in range(1 + name % 2)]
            at = starts[-1] + TILE_TOKENS
            if at > num_prompt:
                break
            image_id = len(self.images)
            tiles = [bytes([name, i]) for i in range(len(starts))]
            self.images[image_id] = Image(image_id, bytes([name]), tiles, num_requests)
            placed.append(PlacedImage(image_id, starts))
        return placed

    def abort(self) -> None:
        rid = self.random.choice(list(self.arrived))
        self.scheduler.abort(rid)  # ended ones are ignored
        if rid not in self.finished:
            self.aborted.add(rid)

    def step(self) -> bool:
        """Plans, executes and, `lag` plans later, updates; whether a step was planned."""
        plan = self.scheduler.schedule()
        if plan is not None:
            known_before = set(self.worker.requests)
            self._check_order(plan, known_before)
            self.in_flight.append((plan, self.worker.execute(plan)))
            self._check_limits(plan, known_before)
        self.scheduler.check_invariants()
        if self.in_flight and (plan is None or len(self.in_flight) > self.lag):
            if self.random.random() < 0.05:
                self.abort()
            self._update(*self.in_flight.popleft())
            self.scheduler.check_invariants()
        return plan is not None

    def _update(self, plan: StepPlan, result: StepResult) -> None:
        drawn = {sampled.rid: sampled.token for sampled in result.sampled}
        deltas = self.scheduler.update(plan, result)
        self.shared_tokens += sum(delta.cached_tokens for delta in deltas)
        assert len({delta.rid for delta in deltas}) == len(deltas)
        for delta in deltas:
            assert delta.rid not in self.aborted
            assert delta.rid not in self.finished
            assert delta.tokens == [drawn[delta.rid]]
            self.output[delta.rid] += delta.tokens
            if delta.finish:
                self.finished[delta.rid] = delta.finish

    def _check_limits(self, plan: StepPlan, known_before: set[int]) -> None:
        num_tokens = sum(segment.length for segment in plan.segments)
        self.computed_tokens += num_tokens
        assert num_tokens <= self.token_budget
        assert len(plan.tiles) <= self.config.max_num_batched_tiles
        assert all(0 <= tile.slot < self.num_slots for tile in plan.tiles)
        assert len(self.worker.requests) <= self.config.max_num_seqs
        assert not known_before.intersection(entry.rid for entry in plan.admitted)
        assert set(plan.released) <= known_before
        assert self.scheduler.stats().computed_tokens == self.computed_tokens
        ended = self.aborted | set(self.finished)
        alive = [rid for rid in self.arrived if rid not in ended]
        running = [rid for rid in alive if rid in self.worker.requests]
        if not self.has_priorities:
            assert running == alive[: len(running)], "a younger request runs, an older one waits"

    def _check_order(self, plan: StepPlan, known_before: set[int]) -> None:
        """Only the youngest running request may miss several tokens: so those that decode lead."""
        if self.has_priorities:
            return
        by_age = [rid for rid in self.arrived if rid in known_before and rid not in plan.released]
        for rid in by_age[:-1]:
            request = self.worker.requests[rid]
            assert len(request.tokens) - request.num_computed <= 1, (rid, plan)

    def check_outcome(self) -> None:
        """Everybody who stayed got exactly the right tokens, and nothing is held."""
        assert set(self.arrived) == self.aborted | set(self.finished)
        for rid, generate in self.arrived.items():
            expected = expected_output(self.layout, generate, self.images)
            if rid in self.finished:
                stopped = expected[-1] in generate.sampling.stop_token_ids
                assert self.output[rid] == expected
                assert self.finished[rid] == ("stop" if stopped else "length")
            else:
                assert self.output[rid] == expected[: len(self.output[rid])]
        stats = self.scheduler.stats()
        assert (stats.running, stats.waiting, stats.pages_owned) == (0, 0, 0)
        assert stats.pages_free == self.num_pages
        assert stats.steps == self.worker.num_steps


def run_traffic(seed: int) -> Traffic:
    """50 steps of arrivals and aborts, then on until all is done."""
    traffic = Traffic(seed)
    rate = traffic.random.choice([0.2, 0.5, 1.0])
    for _ in range(50):
        for _ in range(int(rate + traffic.random.random())):
            traffic.arrive()
        if traffic.arrived and traffic.random.random() < 0.1:
            traffic.abort()
        traffic.step()
    while traffic.scheduler.has_work:
        waits_for_update = bool(traffic.in_flight)
        assert traffic.step() or waits_for_update, "work, but no step"
        assert traffic.worker.num_steps < 20_000, "no end"
    while traffic.in_flight:
        traffic.step()
    traffic.check_outcome()
    return traffic


@pytest.mark.parametrize("first_seed", range(0, 80, 20))
def test_random_traffic_is_served_exactly(first_seed: int) -> None:
    runs = [run_traffic(seed) for seed in range(first_seed, first_seed + 20)]
    assert sum(run.scheduler.stats().preemptions for run in runs) > 3
    assert sum(len(run.aborted) for run in runs) > 20
    assert sum(run.shared_tokens for run in runs) > 500
    assert sum(run.scheduler.stats().encoded_tiles for run in runs) > 50
    assert sum(run.scheduler.stats().reused_tiles for run in runs) > 20
