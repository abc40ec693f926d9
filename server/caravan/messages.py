"""The whole protocol between the processes: plain data, encoded as msgpack. No pickle.

    api    --Image | Generate | Abort | Shutdown-->    engine
    api    <--Progress | Ready | StepOutput | Failed--  engine
    rank 0 --Launch [TokenMasks] | Beat | Halt-->  ranks 1..N-1    (rank 0 is the engine process)
    worker --StepResult--> engine

Messages carry changes, never whole tables: a plan names the new pages of a segment, and the worker
appends them to the tables it keeps.
"""

from __future__ import annotations

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length"]


class Sampling(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one request's tokens are drawn. Everything is resolved: no field means "the default"."""

    max_tokens: int  # at least 1; prompt and completion together fit the context
    min_tokens: int = 0  # stop_token_ids are forbidden until so many tokens exist
    stop_token_ids: tuple[int, ...] = ()  # the model's own end tokens included, unless ignored
    seed: int = 0  # 64 bits; the i-th token depends on (seed, i) and the logits alone
    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0  # (0, 1]; 1: off
    top_k: int = 0  # 0: off
    min_p: float = 0.0  # [0, 1]; 0: off
    repetition_penalty: float = 1.0  # > 0; over prompt and output; 1: off
    frequency_penalty: float = 0.0  # over the output
    presence_penalty: float = 0.0  # over the output
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, added to its logit)
    logprobs: int | None = None  # None: none; n: the drawn token's and the n best's
    prompt_logprobs: int | None = None  # the same for every token of the prompt but the first


class Image(msgspec.Struct, frozen=True, tag="image"):
    """api -> engine: a picture that the next `num_requests` Generates which name it share."""

    image_id: int  # unique in the life of the engine
    key: bytes  # equal keys mean equal tiles
    tiles: list[bytes]  # uint8 [tile_size, tile_size, 3] each
    num_requests: int  # at least 1


class PlacedImage(msgspec.Struct, frozen=True, array_like=True):
    """Where a prompt shows an image."""

    image_id: int
    tile_starts: list[int]  # position of each tile's first patch, ascending


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """api -> engine: start a request. `rid` is unique in the life of the engine."""

    rid: int
    prompt: list[int]  # token ids, at least one
    sampling: Sampling
    images: list[PlacedImage] = []  # in the order of the prompt
    group: int | None = None  # requests of one group have the same prompt, and share its pages
    priority: int = 0  # lower ones go first; among equals the older
    grammar: str | None = None  # what the output must match, as `caravan.grammars` writes it


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """api -> engine: nobody wants this request any more. Unknown or ended ids are ignored."""

    rid: int


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """api -> engine: exit now, with status 0."""


ToEngine = Image | Generate | Abort | Shutdown


class TokenLogprobs(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Log-probabilities under the model's own distribution: before bias, penalties, temperature."""

    logprob: float  # of the drawn token
    top: list[tuple[int, float]]  # (token id, log-probability), best first


class Delta(msgspec.Struct, frozen=True, array_like=True):
    """New tokens of one request."""

    rid: int
    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None  # one per token, where asked for
    finish: FinishReason | None = None  # "stop": the last token is one of stop_token_ids
    cached_tokens: int = 0  # prompt tokens whose keys and values were already there
    prompt_logprobs: list[TokenLogprobs] | None = None  # of the prompt's next tokens, in order
    failure: str | None = None  # the request has ended, unfinished: why, for its client


class Stats(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What the engine holds after a step, and what it has done since its start."""

    running: int = 0  # requests
    waiting: int = 0  # requests
    pages_free: int = 0
    pages_cached: int = 0
    pages_owned: int = 0
    steps: int = 0  # counters, since the start
    preemptions: int = 0
    computed_tokens: int = 0  # tokens run through the model, recomputed ones included
    encoded_tiles: int = 0  # tiles of pictures run through the vision encoder
    reused_tiles: int = 0  # tiles that were there from an earlier request or turn


class StepOutput(msgspec.Struct, frozen=True, tag="step"):
    """engine -> api: what one step gave. Sent on idle too, once a second: the heartbeat."""

    deltas: list[Delta]
    stats: Stats


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """engine -> api: progress of the start-up."""

    phase: str  # "weights", "cache", ...
    done: int
    total: int
    unit: str  # "bytes", "tensors", ...


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """engine -> api: the engine accepts requests. Facts found at run time."""

    max_model_len: int  # tokens, prompt and completion together
    num_pages: int
    page_bytes: int
    block_len: int  # tokens
    vocab_size: int
    dtype: str
    device: str
    fingerprint: str  # changes whenever the same request could give other tokens
    load_s: float
    takes_images: bool = False  # the checkpoint has a vision encoder


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """engine -> api: the engine ends. `user_error`: the message is for the user (a ConfigError)."""

    message: str
    user_error: bool


FromEngine = Progress | Ready | StepOutput | Failed


class Admission(msgspec.Struct, frozen=True, array_like=True):
    """A request enters the worker, for the first time or again after a preemption."""

    rid: int
    tokens: list[int]  # the prompt, and what was generated before a preemption
    num_prompt: int  # so many of them are the prompt
    sampling: Sampling


class SegmentTile(msgspec.Struct, frozen=True, array_like=True):
    """A tile that a segment shows, whole or in part."""

    start: int  # position of the tile's first patch; may lie before the segment
    slot: int  # where the encoded tile is


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """Tokens [start, start + length) of one request; never crosses a chunk boundary.

    The new pages extend the request's tables. They are flat, block by block and inside a block
    slice by slice. A segment that starts a chunk starts an empty chunked table.
    """

    rid: int
    start: int
    length: int
    full_pages: list[int]
    chunked_pages: list[int]
    samples: bool  # it ends at the request's last token, so the next one is drawn
    tiles: list[SegmentTile] = []  # those that overlap it, ascending


class TileToEncode(msgspec.Struct, frozen=True, array_like=True):
    """A tile to run through the vision encoder, and where to keep the result."""

    slot: int
    pixels: bytes  # uint8 [tile_size, tile_size, 3]


class StepPlan(msgspec.Struct, frozen=True, array_like=True):
    """What every rank does in one step. Order: release, admit, encode, then all segments."""

    step: int
    released: list[int]  # rids that the worker forgets: finished, aborted or preempted
    admitted: list[Admission]
    segments: list[Segment]  # one request's in order of start; those of one token first
    tiles: list[TileToEncode] = []


class TokenMasks(msgspec.Struct, frozen=True, array_like=True):
    """Which tokens the next draw of some requests may give."""

    rids: list[int]
    words: bytes  # int32 [len(rids), ceil(vocabulary / 32)]: token i is bit i % 32 of word i // 32


class Launch(msgspec.Struct, frozen=True, tag="launch"):
    """rank 0 -> the others: compute this step."""

    plan: StepPlan
    masked: bool  # TokenMasks follow: the draw waits for them


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """rank 0 -> the others: there is nothing to do."""


class Halt(msgspec.Struct, frozen=True, tag="halt"):
    """rank 0 -> the others: exit now, with status 0."""


ToRank = Launch | Beat | Halt


class Sampled(msgspec.Struct, frozen=True, array_like=True):
    """The token drawn for one segment that `samples`."""

    rid: int
    token: int
    logprobs: TokenLogprobs | None = None


class Scored(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities of a prompt's tokens from position `start` on."""

    rid: int
    start: int
    logprobs: list[TokenLogprobs]


class StepResult(msgspec.Struct, frozen=True, array_like=True):
    """worker -> scheduler: the drawn tokens, and what was asked about prompts."""

    sampled: list[Sampled]  # one entry per sampling segment, in the plan's order
    scored: list[Scored] = []  # one entry per segment with tokens to score, in the plan's order
