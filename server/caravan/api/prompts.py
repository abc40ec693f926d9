"""Prompts, cut to the length that a client wants at most."""

from __future__ import annotations

from caravan.errors import InvalidValue
from caravan.text.prompt import Prompt


def truncated(prompt: Prompt, limit: int | None, param: str) -> Prompt:
    """The last `limit` tokens. Raises InvalidValue if pictures would be cut; `param` names them."""
    if limit is None or len(prompt.tokens) <= limit:
        return prompt
    if prompt.tile_starts:
        raise InvalidValue(
            f"`truncate_prompt_tokens` is {limit} and the {param} have {len(prompt.tokens)} tokens "
            "with images, which cannot be cut; leave it out, or send fewer messages.",
            param="truncate_prompt_tokens",
        )
    return Prompt(prompt.tokens[-limit:])
