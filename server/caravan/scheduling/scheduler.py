"""Chooses the tokens of the next step.

There is no prefill and no decode phase: oldest first, each running request's computed count catches
up with its token count inside one token budget per step. Then waiting requests are admitted, oldest
first, while there are seats, budget, and pages for all their tokens. "Older" is what has the lower
number as its priority, and among equals what came first. Without priorities the running requests
are always older than the waiting ones:

    oldest  running  youngest  <-- admit   preempt -->  oldest  waiting  youngest

A request is admitted only when all before it are planned up to their last token. So only the
youngest running request can miss several tokens: those that decode come first in every step, and
two prompts never compete for pages.

A request that lacks a page preempts the youngest, whose turn in this step had yet to come: its
pages are free at once, and it starts over later with all its tokens. There are two exceptions:
when chunked pages come back right after this step, the request waits for them; and the youngest
waits with its pages until older requests finish or take them. So the oldest request is never
stopped, and every request ends.

Requests of one group have the same prompt. One that is admitted while another of them runs begins
with the whole blocks of the prompt that are computed, or are planned in the same step: it shares
their pages, and computes the few tokens behind them.

Pictures have a budget of their own, in tiles: a request's tokens are planned up to the first tile
that is neither kept nor fits the step, and nobody is admitted behind it. `scheduling.tile_cache`
says why that cannot stop a request for ever.

Tokens count as computed, and the pages of an ended chunk as free, once they are planned; a token
that a plan draws is there for the next plan, though its value is known to the worker alone. So
`schedule` may be called again before the `update` of the plan before, and a device need not wait
for the host between two steps. What a request that ended or was preempted had in later plans is
computed for nothing.
"""

from __future__ import annotations

from collections import OrderedDict

from caravan.config import SchedulerConfig
from caravan.kv_layout import KVLayout
from caravan.messages import Delta, Generate, Image, Sampled, Stats, StepPlan, StepResult
from caravan.scheduling.page_pool import PagePool
from caravan.scheduling.page_tables import PageTables
from caravan.scheduling.request import Request
from caravan.scheduling.step_draft import StepDraft
from caravan.scheduling.tile_cache import TileCache
from caravan.tiles import TileSlots

# Free blocks per running request that an admission leaves. 400 random chats on 20000 pages compute
# 38 % of their tokens again after preemptions with 0, 7 % with 2; 4 blocks cost 2 % more steps.
HEADROOM_BLOCKS = 2


class Scheduler:
    """All requests of an engine, the pages they own, and the plan of the next step."""

    def __init__(
        self,
        layout: KVLayout,
        num_pages: int,
        config: SchedulerConfig,
        tile_slots: TileSlots | None = None,
    ) -> None:
        """`config` is resolved for the device; `tile_slots` is the worker's room for encoded tiles.

        Without tile slots the model sees no pictures.
        """
        assert config.max_num_batched_tokens is not None, config
        self._layout = layout
        self._config = config
        self._token_budget = config.max_num_batched_tokens
        self._pool = PagePool(num_pages)
        self._tile_slots = tile_slots or TileSlots(num_slots=0, tile_tokens=1)
        self._tile_cache = TileCache(self._tile_slots.num_slots)
        self._images: dict[int, tuple[Image, int]] = {}  # by id, with the Generates yet to come
        self._arrivals = 0
        self._running: OrderedDict[int, Request] = OrderedDict()  # exactly these are admitted
        self._waiting: OrderedDict[int, Request] = OrderedDict()  # both by rid, oldest first
        self._released: list[int] = []  # rids that the next plan tells the worker to forget
        self._steps = 0
        self._preemptions = 0
        self._computed_tokens = 0
        self._encoded_tiles = 0
        self._reused_tiles = 0

    @property
    def has_work(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self._running or self._waiting)

    def add_image(self, image: Image) -> None:
        """Keeps a picture until the last Generate that names it is there: requests hold theirs."""
        assert self._tile_slots.num_slots, "the model sees no pictures"
        assert image.num_requests > 0, image.image_id
        assert image.image_id not in self._images, image.image_id
        self._images[image.image_id] = image, image.num_requests

    def add(self, generate: Generate) -> None:
        """Queues a request whose prompt and completion fit `layout.longest_context`."""
        rid = generate.rid
        assert rid not in self._running, rid
        assert rid not in self._waiting, rid
        assert generate.prompt, rid
        longest = len(generate.prompt) + generate.sampling.max_tokens
        assert self._layout.pages_needed(longest) <= self._pool.num_pages, (rid, longest)
        tables = PageTables(self._layout, self._pool)
        request = Request.arrived(generate, self._arrivals, tables, self._take_images(generate))
        self._arrivals += 1
        _insert(self._waiting, request)

    def abort(self, rid: int) -> None:
        """Forgets a request, if there is one of this id; its pages are free at once."""
        if rid in self._running:
            self._release(rid)
        else:
            self._waiting.pop(rid, None)

    def schedule(self) -> StepPlan | None:
        """The next step, or None if there is nothing to compute.

        A plan always has segments: released ids alone wait for the next plan, because the worker
        holds no pages, only a few bytes for each.
        """
        draft = StepDraft(
            self._token_budget,
            self._config.max_num_batched_tiles,
            self._tile_slots.tile_tokens,
            self._tile_cache,
        )
        for request in tuple(self._running.values()):
            if request.rid in self._running:
                self._advance(request, draft)
        self._admit_waiting(draft)
        for request in draft.chunk_ends:
            request.tables.free_ended()
        self._tile_cache.release_step()
        segments = draft.segments()
        if not segments:
            return None
        plan = StepPlan(self._steps, self._released, draft.admitted, segments, draft.tiles)
        self._released = []
        self._steps += 1
        self._computed_tokens += self._token_budget - draft.budget
        self._encoded_tiles += len(draft.tiles)
        self._reused_tiles += draft.reused_tiles
        return plan

    def update(self, plan: StepPlan, result: StepResult) -> list[Delta]:
        """Takes the drawn tokens of a plan; ends the requests that are done.

        Results of requests that ended, left or were preempted since the plan was made are ignored.
        """
        sampling = [segment.rid for segment in plan.segments if segment.samples]
        assert [sampled.rid for sampled in result.sampled] == sampling, (plan, result)
        deltas = []
        for scored in result.scored:
            request = self._wanted(scored.rid, plan)
            if request and (news := request.news(scored)):
                deltas.append(Delta(scored.rid, [], prompt_logprobs=news))
        for sampled in result.sampled:
            if request := self._wanted(sampled.rid, plan):
                deltas.append(self._append(request, sampled))
        return deltas

    def _wanted(self, rid: int, plan: StepPlan) -> Request | None:
        """The request whose results in a plan count, if it still does."""
        request = self._running.get(rid)
        return request if request and request.first_step <= plan.step else None

    def stats(self) -> Stats:
        """Requests and pages now; counters since the start."""
        return Stats(
            running=len(self._running),
            waiting=len(self._waiting),
            pages_free=self._pool.num_free,
            pages_cached=self._pool.num_cached,
            pages_owned=self._pool.num_owned,
            steps=self._steps,
            preemptions=self._preemptions,
            computed_tokens=self._computed_tokens,
            encoded_tiles=self._encoded_tiles,
            reused_tiles=self._reused_tiles,
        )

    def check_invariants(self) -> None:
        """Asserts that every page is free, cached or in one running request's tables.

        Takes time in the number of owned and free pages: for tests, and for idle engines.
        """
        tables = [page for request in self._running.values() for page in request.tables.pages()]
        self._pool.check_invariants(tables)
        assert not any(request.num_computed for request in self._waiting.values())
        assert len(self._running) <= self._config.max_num_seqs, len(self._running)

    def _take_images(self, generate: Generate) -> dict[int, Image]:
        """The pictures that a request names; those that no further request names are forgotten."""
        taken = {}
        for image_id in {placed.image_id for placed in generate.images}:
            image, num_requests = self._images.pop(image_id)
            taken[image_id] = image
            if num_requests > 1:
                self._images[image_id] = image, num_requests - 1
        return taken

    def _advance(self, request: Request, draft: StepDraft) -> None:
        """Plans a running request's next tokens, on the pages of younger requests if need be."""
        while not draft.advance(request) and not draft.chunk_ends:
            rid, youngest = next(reversed(self._running.items()))
            if youngest is request:
                return
            self._release(rid)
            youngest.num_drawn = 0  # drawn again, from the same seed
            _insert(self._waiting, youngest)
            self._preemptions += 1

    def _admit_waiting(self, draft: StepDraft) -> None:
        """Admits waiting requests in order while seats, budget and pages last."""
        while self._waiting and draft.budget and not draft.lacks_tiles:
            if len(self._running) == self._config.max_num_seqs:
                return
            request = next(iter(self._waiting.values()))
            relative, shared = self._relative(request)
            if not self._fits(request, shared):
                return
            _insert(self._running, self._waiting.pop(request.rid))
            request.first_step = self._steps
            request.num_shared = shared
            if relative:
                request.tables.adopt(relative.tables, shared)
            draft.admitted.append(request.admission())
            draft.advance(request)

    def _relative(self, request: Request) -> tuple[Request | None, int]:
        """The running request of the same group that shares the most tokens, and how many."""
        if request.group is None:
            return None, 0
        relatives = [other for other in self._running.values() if other.group == request.group]
        shareable = [other.shareable(request) for other in relatives]
        most = max(shareable, default=0)
        return (relatives[shareable.index(most)], most) if most else (None, 0)

    def _fits(self, request: Request, shared: int) -> bool:
        """Whether there are pages for a waiting request's tokens, the next one, and headroom.

        `shared` of the tokens have pages.
        """
        layout = self._layout
        needed = layout.pages_needed(len(request.tokens) + 1) - sum(layout.pages_kept(shared))
        headroom = len(self._running) * HEADROOM_BLOCKS * layout.block_pages
        return needed + headroom <= self._pool.num_free

    def _append(self, request: Request, sampled: Sampled) -> Delta:
        """Appends a drawn token to its request, which ends here if the token is its last."""
        assert request.num_drawn > 0, (request, sampled)
        finish = request.append(sampled.token)
        if finish:
            self._release(request.rid)
        logprobs = None if sampled.logprobs is None else [sampled.logprobs]
        return Delta(request.rid, [sampled.token], logprobs, finish, request.num_shared)

    def _release(self, rid: int) -> None:
        """Takes a request out of the running ones: its pages are free, the worker forgets it."""
        self._running.pop(rid).tables.clear()
        self._released.append(rid)


def _insert(queue: OrderedDict[int, Request], request: Request) -> None:
    """Puts a request in its place; nearly always that is one of the ends."""
    first, last = (next(iter(queue.values()), None), next(reversed(queue.values()), None))
    queue[request.rid] = request
    if not first or not last or last.place < request.place:
        return
    if request.place < first.place:
        queue.move_to_end(request.rid, last=False)
        return
    for other in sorted(queue.values(), key=lambda other: other.place):
        queue.move_to_end(other.rid)
