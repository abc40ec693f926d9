"""Tokens and log-probabilities as clients read them.

JSON has no infinity, so an impossible token has OpenAI's -9999. A special token stands for no text:
its `bytes` are null. The bytes of the listed tokens, joined, are the bytes of the text.
"""

from __future__ import annotations

from caravan.api.answer import Json
from caravan.api.choices import ListedToken
from caravan.text.tokenizer import Tokenizer

FLOOR = -9999.0


def chat_logprobs(tokenizer: Tokenizer, tokens: list[ListedToken]) -> Json:
    """The `logprobs` of a chat choice."""
    return {
        "content": [
            {
                **_entry(tokenizer, token.token_id, token.logprobs.logprob),
                "top_logprobs": [_entry(tokenizer, *best) for best in token.logprobs.top],
            }
            for token in tokens
        ],
        "refusal": None,
    }
