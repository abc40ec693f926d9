"""Request fields to `messages.Sampling`, one for each choice; limits that the model sets."""

from __future__ import annotations

import secrets
from collections.abc import Collection

import msgspec

from caravan.api.schema.base import INT64_MIN
from caravan.api.schema.sampling import SamplingBody
from caravan.api.service import Service
from caravan.api.validation import shown
from caravan.errors import ContextLengthExceeded, InvalidValue
from caravan.messages import Sampling


def resolve(
    service: Service, body: SamplingBody, max_tokens: int, logprobs: int | None
) -> Sampling:
    """Everything but the seed, the model's own defaults put in. Raises InvalidValue."""
    vocab_size = service.loaded().vocab_size
    require_token_ids(body.stop_token_ids, vocab_size, "stop_token_ids")
    biases = {int(token_id): bias for token_id, bias in body.logit_bias.items()}
    require_token_ids(biases.keys(), vocab_size, "logit_bias")
    if body.min_tokens > max_tokens:
        raise InvalidValue(
            f"`min_tokens` is {body.min_tokens}; it must be at most `max_tokens`, "
            f"which is {max_tokens} here.",
            param="min_tokens",
        )
    defaults = service.defaults
    temperature = defaults.temperature if body.temperature is None else body.temperature
    top_p = defaults.top_p if body.top_p is None else body.top_p
    top_k = defaults.top_k if body.top_k is None else body.top_k
    return Sampling(
        max_tokens=max_tokens,
        min_tokens=body.min_tokens,
        stop_token_ids=_stop_token_ids(service, body),
        temperature=1.0 if temperature is None else temperature,
        top_p=1.0 if top_p is None else top_p,
        top_k=min(max(top_k or 0, 0), vocab_size),
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        logit_bias=tuple(biases.items()),
        logprobs=logprobs,
    )


def seeded(sampling: Sampling, seed: int | None, n: int) -> list[Sampling]:
    """`n` choices of one prompt: choice i is drawn with `seed + i`, or each at random.

    Prompts of one request get the same seeds, so each answers as if it had been sent alone.
    """
    first = [secrets.randbits(64) if seed is None else seed + i for i in range(n)]
    return [msgspec.structs.replace(sampling, seed=_int64(value)) for value in first]


def completion_len(
    requested: int | None, default: int | None, prompt_len: int, max_model_len: int, param: str
) -> int:
    """Tokens that a completion may have: as requested, or `default`, or the rest of the context.

    `param` names the prompt. Raises ContextLengthExceeded, in the words of OpenAI: LiteLLM searches
    for "maximum context length", LangChain for the code, which the SDK's exception does not print.
    """
    room = max_model_len - prompt_len
    completion = requested or max(1, room if default is None else min(default, room))
    if completion > room:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {max_model_len} tokens. However, you "
            f"requested {prompt_len + completion} tokens ({prompt_len} in the {param}, "
            f"{completion} in the completion). Please reduce the length of the {param} or "
            f"completion ({ContextLengthExceeded.code}).",
            param=param,
        )
    return completion


def require_token_ids(token_ids: Collection[int], vocab_size: int, param: str) -> None:
    """Raises InvalidValue unless every id is in the vocabulary."""
    if not token_ids:
        return
    for token_id in (min(token_ids), max(token_ids)):
        if not 0 <= token_id < vocab_size:
            raise InvalidValue(
                f"`{param}` has the token id {shown(token_id)}; ids go from 0 to {vocab_size - 1}.",
                param=param,
            )


def _stop_token_ids(service: Service, body: SamplingBody) -> tuple[int, ...]:
    own: tuple[int, ...] = ()
    if not body.ignore_eos:
        own = (*service.tokenizer.stop_ids, *(service.defaults.eos_token_ids or ()))
    return tuple(sorted({*own, *body.stop_token_ids}))


def _int64(value: int) -> int:
    return (value - INT64_MIN) % 2**64 + INT64_MIN
