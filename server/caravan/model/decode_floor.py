"""The floor of a decode step: what it must read, and what it must compute.

It reads every weight outside the routed experts (of the embedding only the rows used, of the vision
encoder nothing), the experts that are hit, and keys and values. Nobody counts the experts that are
hit: with b requests and E experts a router that is uniformly random hits E * (1 - (1 - 1/E)^b) of
them on average, which random weights come close to, and a trained router stays below.
"""

from __future__ import annotations

from collections.abc import Sequence

from caravan.model.architecture import Architecture
from caravan.model.footprint import Footprint


def hit_experts(num_experts: int, num_tokens: int) -> float:
    """Experts of a layer that so many tokens hit on average, each choosing one at random.

    >>> [round(hit_experts(16, tokens), 1) for tokens in (1, 8, 64)]
    [1.0, 6.5, 15.7]
    """
    if not num_experts:
        return 0.0
    return float(num_experts * (1 - (1 - 1 / num_experts) ** num_tokens))


def decode_bytes(size: Footprint, architecture: Architecture, contexts: Sequence[int]) -> float:
    """Bytes that a decode step reads; `contexts`: tokens that each request's layers see."""
    parts = dict(size.weight_bytes)
    embeddings = parts.pop("embeddings")
    if not architecture.tie_word_embeddings:
        embeddings = 0  # the head's weight is read whole, the table's only by rows
    parts.pop("vision", None)
    missed = 0.0
    if num_experts := architecture.num_experts:
        expert = 3 * architecture.hidden_size * architecture.expert_intermediate_size
        itemsize = size.weight_bytes["experts"] / size.num_parameters["experts"]
        unread = num_experts - hit_experts(num_experts, len(contexts))
        missed = sum(architecture.moe) * unread * expert * itemsize
    cache = sum(
        size.full_bytes_per_token * context
        + size.chunked_bytes_per_token * size.layout.chunked_tokens(context)
        for context in contexts
    )
    return sum(parts.values()) - missed + embeddings + cache


def decode_flops(architecture: Architecture, contexts: Sequence[int]) -> float:
    """Multiplications and additions of a step with one token of each request, on all ranks.

    Two for each weight that a token meets: of the routed experts one in each layer, of the
    embedding none. Four for each head's element of each token that attention sees.
    """
    a = architecture
    attention = a.hidden_size * a.head_dim * 2 * (a.num_heads + a.num_kv_heads)
    moe = 2 * 3 * a.hidden_size * a.expert_intermediate_size + a.hidden_size * a.num_experts
    dense = 3 * a.hidden_size * a.dense_intermediate_size
    weights = a.num_layers * attention + a.hidden_size * a.vocab_size
    weights += sum(moe if has_experts else dense for has_experts in a.moe)
    num_chunked = sum(a.chunked)
    seen = sum(
        (a.num_layers - num_chunked) * context + num_chunked * ((context - 1) % a.chunk_len + 1)
        for context in contexts
    )
    return 2 * weights * len(contexts) + 4 * a.num_heads * a.head_dim * seen
