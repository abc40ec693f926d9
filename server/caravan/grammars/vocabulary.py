"""The vocabulary as llguidance knows it: a trie of all tokens' bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llguidance import LLTokenizer, TokenizerWrapper


class _Source:
    """What `TokenizerWrapper` reads. Called, it encodes text in the model's own way."""

    def __init__(
        self,
        tokens: list[bytes],
        special_token_ids: list[int],
        eos_token_id: int,
        encode: Callable[[str], list[int]],
    ) -> None:
        self.tokens = tokens
        self.special_token_ids = special_token_ids
        self.eos_token_id = eos_token_id
        self.bos_token_id = None
        self._encode = encode

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError  # the wrapper asks once whether bytes are welcome
        return self._encode(text)


def guidance_tokenizer(
    tokens: Sequence[bytes],
    specials: Mapping[str, int],
    stop_ids: Sequence[int],
    encode: Callable[[str], list[int]],
    vocab_size: int,
) -> LLTokenizer:
    """llguidance's tokenizer, over the text of each token.

    A special token, whatever `tokens` says of it, goes by its name in `specials`. A token without
    text is never allowed; neither are the ids from `len(tokens)` to `vocab_size`. Each of
    `stop_ids` ends an output. `encode` gives the tokens of text, no special ones among them.
    """
    assert len(tokens) <= vocab_size, (len(tokens), vocab_size)
    texts = [*tokens, *[b""] * (vocab_size - len(tokens))]
    for name, token_id in specials.items():
        texts[token_id] = name.encode()
    source = _Source(texts, sorted(specials.values()), stop_ids[0], encode)
    return LLTokenizer(TokenizerWrapper(source), eos_token=list(stop_ids))
