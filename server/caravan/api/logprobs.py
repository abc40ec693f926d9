"""Tokens and log-probabilities as clients read them.

JSON has no infinity, so an impossible token has OpenAI's -9999. A special token stands for no text:
its `bytes` are null. The bytes of the listed tokens, joined, are the bytes of the text, unless a
stop string cut into the last one.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence

from caravan.api.answer import Json
from caravan.api.choices import ListedToken
from caravan.text.tokenizer import Tokenizer

FLOOR = -9999.0


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[ListedToken]) -> Json:
    """The `logprobs` of a chat choice."""
    content = [
        {
            **_entry(tokenizer, token.token_id, token.logprobs.logprob),
            "top_logprobs": [_entry(tokenizer, *best) for best in token.logprobs.top],
        }
        for token in tokens
        if token.logprobs is not None
    ]
    return {"content": content, "refusal": None}


def prompt_logprobs(
    tokenizer: Tokenizer, tokens: Sequence[ListedToken], num_top: int
) -> list[Json | None]:
    """vLLM's `prompt_logprobs`: by token id, each token's own value and the best ones'.

    A token that is not among the best has no rank.
    """
    return [
        None
        if token.logprobs is None
        else {
            str(token.token_id): _ranked(tokenizer, token.token_id, token.logprobs.logprob, None),
            **{
                str(best): _ranked(tokenizer, best, value, rank)
                for rank, (best, value) in enumerate(token.logprobs.top[:num_top], 1)
            },
        }
        for token in tokens
    ]


class CompletionLogprobs:
    """The `logprobs` of a completions choice, whose offsets go on from chunk to chunk.

    A token's offset is that of its first character, or of the character that it goes on with.
    """

    def __init__(self, tokenizer: Tokenizer, num_top: int, shown: Collection[int]) -> None:
        """`shown`: the special tokens whose names are in the text."""
        self._tokenizer = tokenizer
        self._num_top = num_top
        self._shown = shown
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def write(self, tokens: Sequence[ListedToken]) -> Json:
        """The next tokens. `top_logprobs` holds the token itself too, as OpenAI's does."""
        return {
            "tokens": [token_name(self._tokenizer, token.token_id) for token in tokens],
            "token_logprobs": [
                None if token.logprobs is None else _finite(token.logprobs.logprob)
                for token in tokens
            ],
            "top_logprobs": [self._best(token) for token in tokens],
            "text_offset": [self._next_offset(token.token_id) for token in tokens],
        }

    def _best(self, token: ListedToken) -> Json | None:
        if token.logprobs is None:
            return None
        best = [*token.logprobs.top[: self._num_top], (token.token_id, token.logprobs.logprob)]
        return {token_name(self._tokenizer, id_): _finite(value) for id_, value in best}

    def _next_offset(self, token_id: int) -> int:
        offset = self._offset
        if not self._tokenizer.is_special(token_id) or token_id in self._shown:
            self._offset += len(self._decoder.decode(self._tokenizer.token_bytes(token_id)))
        return offset


def token_name(tokenizer: Tokenizer, token_id: int) -> str:
    r"""A token as a string: its text, a special token's name, or OpenAI's `bytes:\xe2\x82`."""
    data = tokenizer.token_bytes(token_id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _entry(tokenizer: Tokenizer, token_id: int, logprob: float) -> Json:
    special = tokenizer.is_special(token_id)
    return {
        "token": token_name(tokenizer, token_id),
        "logprob": _finite(logprob),
        "bytes": None if special else list(tokenizer.token_bytes(token_id)),
    }


def _ranked(tokenizer: Tokenizer, token_id: int, logprob: float, rank: int | None) -> Json:
    name = token_name(tokenizer, token_id)
    return {"logprob": _finite(logprob), "rank": rank, "decoded_token": name}


def _finite(logprob: float) -> float:
    return max(logprob, FLOOR)
