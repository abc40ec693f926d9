"""Tokens and log-probabilities as clients read them.

JSON has no infinity, so an impossible token has OpenAI's -9999. A special token stands for no text:
its `bytes` are null. The bytes of the listed tokens, joined, are the bytes of the text, unless a
stop string cut into the last one.
"""

from __future__ import annotations

import codecs

from caravan.api.answer import Json
from caravan.api.choices import ListedToken
from caravan.text.tokenizer import Tokenizer

FLOOR = -9999.0


def chat_logprobs(tokenizer: Tokenizer, tokens: list[ListedToken]) -> Json:
    """The `logprobs` of a chat choice."""
    content = [
        {
            **_entry(tokenizer, token.token_id, token.logprobs.logprob),
            "top_logprobs": [_entry(tokenizer, *best) for best in token.logprobs.top],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


class CompletionLogprobs:
    """The `logprobs` of a completions choice, whose offsets go on from chunk to chunk.

    A token's offset is that of its first character, or of the character that it goes on with.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def write(self, tokens: list[ListedToken]) -> Json:
        """The next tokens. `top_logprobs` holds the drawn token too, as OpenAI's does."""
        names = [token_name(self._tokenizer, token.token_id) for token in tokens]
        return {
            "tokens": names,
            "token_logprobs": [_finite(token.logprobs.logprob) for token in tokens],
            "top_logprobs": [
                {
                    **{
                        token_name(self._tokenizer, best): _finite(value)
                        for best, value in token.logprobs.top
                    },
                    name: _finite(token.logprobs.logprob),
                }
                for name, token in zip(names, tokens, strict=True)
            ],
            "text_offset": [self._next_offset(token.token_id) for token in tokens],
        }

    def _next_offset(self, token_id: int) -> int:
        offset = self._offset
        if not self._tokenizer.is_special(token_id):
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


def _finite(logprob: float) -> float:
    return max(logprob, FLOOR)
