"""Text to token ids and back.

Pair merging is tiktoken's. Text never becomes a special token: what spells one is encoded like any
other text. A lone surrogate, which JSON can hold and UTF-8 cannot, is encoded as U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import tiktoken

from caravan.errors import CheckpointError
from caravan.text.tokenizer_json import read_tokenizer_json
from caravan.text.tokenizer_model import read_tokenizer_model
from caravan.text.vocabulary import (
    BEGIN_OF_TEXT,
    END_OF_MESSAGE,
    END_OF_TEXT,
    END_OF_TURN,
    Vocabulary,
)

# Meta cuts long text before encoding it, and a cut can move a token boundary, so the same bounds
# hold here. Without them tiktoken's regular expressions overflow their stack on a million spaces.
SLICE_LEN = 400_000  # characters
MAX_RUN_LEN = 25_000  # characters of white space, or of anything else, without a break

# A longer run covers two neighbouring multiples of this, so looking there finds it.
_STRIDE = MAX_RUN_LEN // 2
_LONG_RUN = re.compile(rf"\s{{{_STRIDE}}}|\S{{{_STRIDE}}}")
_RUN = re.compile(r"\s+|\S+")


class UnknownTokenId(ValueError):
    """A token id outside the vocabulary: in a request, InvalidValue."""

    def __init__(self, token_id: int, vocab_size: int) -> None:
        super().__init__(f"token id {token_id} is not between 0 and {vocab_size - 1}")
        self.token_id = token_id
        self.vocab_size = vocab_size


class Tokenizer:
    """Immutable, and safe to use from several threads; encoding releases the GIL.

    `model_size` is how many token ids the model knows, where that is known: ids past the
    vocabulary's own are padding, which has no text. Raises CheckpointError if the model knows
    fewer, or the vocabulary's pattern is not a regular expression.
    """

    def __init__(self, vocabulary: Vocabulary, model_size: int | None = None) -> None:
        try:
            self._encoding = tiktoken.Encoding(
                name=str(vocabulary.source),
                pat_str=vocabulary.pattern,
                mergeable_ranks=vocabulary.ranks,
                special_tokens=vocabulary.special_ids,
            )
        except ValueError as error:
            raise CheckpointError(
                f"{vocabulary.source}: its pattern is not a regular expression: {error}"
            ) from error
        self._source = vocabulary.source
        self.special_ids = vocabulary.special_ids
        self._special_names = {id_: name for name, id_ in vocabulary.special_ids.items()}
        size = len(vocabulary.ranks) + len(vocabulary.special_ids)
        self.vocab_size = size if model_size is None else model_size
        if self.vocab_size < size:
            raise CheckpointError(
                f"{vocabulary.source}: has {size} tokens and the model {model_size} "
                "(vocab_size in config.json); they do not belong together"
            )
        self._text_bytes = [b""] * self.vocab_size
        for token, token_id in vocabulary.ranks.items():
            self._text_bytes[token_id] = token
        self.bos_id = self.special_id(BEGIN_OF_TEXT)
        self.stop_ids = tuple(map(self.special_id, (END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN)))

    @classmethod
    def from_directory(cls, path: Path, model_size: int | None = None) -> Tokenizer:
        """Reads `tokenizer.json`, else `tokenizer.model`. Raises CheckpointError.

        tokenizer.json goes first because it holds what tokenizer.model leaves to convention: a
        fine-tune that changes the pattern or a special token can say so only there.
        """
        for name, read in (
            ("tokenizer.json", read_tokenizer_json),
            ("tokenizer.model", read_tokenizer_model),
        ):
            if (path / name).exists():
                return cls(read(path / name), model_size)
        raise CheckpointError(
            f"{path}: neither tokenizer.json nor tokenizer.model is there; "
            "copy one from where the weights came from"
        )

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text, no special ones among them."""
        tokens: list[int] = []
        for start in range(0, len(text), SLICE_LEN):
            for piece in _pieces(text[start : start + SLICE_LEN]):
                tokens += self._encoding.encode_ordinary(piece)
        return tokens

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of the ordinary tokens; bytes that are not UTF-8 become U+FFFD.

        Raises UnknownTokenId.
        """
        return b"".join(map(self.text_bytes, token_ids)).decode(errors="replace")

    def text_bytes(self, token_id: int) -> bytes:
        """What a token adds to the text: nothing, if it is special. Raises UnknownTokenId."""
        if not 0 <= token_id < self.vocab_size:
            raise UnknownTokenId(token_id, self.vocab_size)
        return self._text_bytes[token_id]

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes that show a token: its text's, or a special one's name. Raises UnknownTokenId."""
        name = self._special_names.get(token_id)
        return self.text_bytes(token_id) if name is None else name.encode()

    def is_special(self, token_id: int) -> bool:
        """Whether a token is special: it adds nothing to the text."""
        return token_id in self._special_names

    def special_id(self, name: str) -> int:
        """Id of a special token, such as `<|eot|>`. Raises KeyError if there is none."""
        return self.special_ids[name]

    def require_special(self, names: Iterable[str]) -> None:
        """Raises CheckpointError unless there is a special token of each name."""
        for name in names:
            if name not in self.special_ids:
                raise CheckpointError(
                    f"{self._source}: no special token {name}, which a model that sees pictures "
                    "needs"
                )


def _pieces(text: str) -> Iterator[str]:
    """Cuts runs of more than MAX_RUN_LEN characters, each counted from its own beginning."""
    if not any(_LONG_RUN.match(text, at) for at in range(0, len(text), _STRIDE)):
        yield text
        return
    cuts = [0]
    for run in _RUN.finditer(text):
        cuts += range(run.start() + MAX_RUN_LEN, run.end(), MAX_RUN_LEN)
    for start, end in pairwise([*cuts, len(text)]):
        yield text[start:end]
