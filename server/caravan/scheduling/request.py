"""One request: its tokens, how far they are computed, its place in the order, and when it ends."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from caravan.messages import (
    Admission,
    FinishReason,
    Generate,
    Image,
    Sampling,
    Scored,
    TokenLogprobs,
)
from caravan.scheduling.page_tables import PageTables
from caravan.scheduling.tile_cache import TileKey


class PromptTile(NamedTuple):
    """A tile of a picture in a prompt."""

    start: int  # position of its first patch
    key: TileKey
    pixels: bytes


@dataclass(slots=True, eq=False)
class Request:
    """A request that waits or runs."""

    rid: int
    place: tuple[int, int]  # in both queues: its priority, then its order of arrival
    group: int | None  # requests of one group have the same prompt
    tokens: list[int]  # prompt and output
    num_prompt: int
    sampling: Sampling
    tables: PageTables
    tiles: Sequence[PromptTile] = ()  # in order of position
    num_drawn: int = 0  # tokens that launched steps draw, and that are not in `tokens` yet
    first_step: int = 0  # of its present admission: tokens of earlier steps are not wanted
    num_shared: int = 0  # tokens whose pages it got from another request, at its last admission
    num_scored: int = 0  # tokens of the prompt whose log-probabilities were told

    @classmethod
    def arrived(
        cls,
        generate: Generate,
        order: int,
        tables: PageTables,
        images: Mapping[int, Image] | None = None,
    ) -> Request:
        """The `order`-th request, nothing of whose prompt is computed; `images` by their ids."""
        prompt = list(generate.prompt)
        tiles = [
            PromptTile(start, TileKey(image.key, index), image.tiles[index])
            for placed in generate.images
            for image in [(images or {})[placed.image_id]]
            for index, start in enumerate(placed.tile_starts)
        ]
        return cls(
            rid=generate.rid,
            place=(generate.priority, order),
            group=generate.group,
            tokens=prompt,
            num_prompt=len(prompt),
            sampling=generate.sampling,
            tables=tables,
            tiles=tiles,
        )

    @property
    def num_computed(self) -> int:
        """Tokens whose keys and values exist once the steps planned so far have run."""
        return self.tables.num_tokens

    @property
    def num_known(self) -> int:
        """Tokens that a step can compute: those drawn by earlier steps are on the device."""
        return len(self.tokens) + self.num_drawn

    @property
    def num_missing(self) -> int:
        """Tokens yet to compute. The last one that `max_tokens` allows need not be."""
        longest = self.num_prompt + self.sampling.max_tokens - 1
        return min(self.num_known, longest) - self.tables.num_tokens

    def shareable(self, other: Request) -> int:
        """How many tokens a request of the same group, not admitted yet, can share.

        At least one is left for it to compute: its logits give the first token.
        """
        return self.tables.shareable(min(self.num_prompt, len(other.tokens) - 1))

    def news(self, scored: Scored) -> list[TokenLogprobs]:
        """The log-probabilities that were not told yet: after a preemption they come again."""
        news = scored.logprobs[max(0, self.num_scored + 1 - scored.start) :]
        self.num_scored += len(news)
        return news

    def tiles_in(self, start: int, end: int, tile_tokens: int) -> Sequence[PromptTile]:
        """The tiles of `tile_tokens` patches that overlap the positions [start, end)."""
        if not self.tiles:
            return ()
        first = bisect_right(self.tiles, start - tile_tokens, key=_start)
        return self.tiles[first : bisect_left(self.tiles, end, key=_start)]

    def admission(self) -> Admission:
        """What the worker is told when the request enters it."""
        return Admission(self.rid, list(self.tokens), self.num_prompt, self.sampling)

    def append(self, token: int) -> FinishReason | None:
        """Appends a drawn token; says whether, and why, the request ends with it.

        A step may be under way that computes this token for a request which ends with it.

        The sampler draws no stop token before `min_tokens`, so every stop token ends the request.
        """
        self.tokens.append(token)
        self.num_drawn -= 1
        if token in self.sampling.stop_token_ids:
            return "stop"
        if len(self.tokens) - self.num_prompt >= self.sampling.max_tokens:
            return "length"
        return None


def _start(tile: PromptTile) -> int:
    return tile.start
