"""Reads `tokenizer.json`, as Hugging Face's `tokenizers` writes it for byte-level pair merging.

Only what Llama 4's file has is understood; whatever would change the tokens of a text is refused.
What the file says about prompts (`post_processor`, `truncation`, `padding`) is not read: prompts
are built in caravan.text.prompt.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from caravan.errors import CheckpointError
from caravan.text.json_file import read_json
from caravan.text.merges import merge_conflict
from caravan.text.vocabulary import Vocabulary


class _AddedToken(msgspec.Struct):
    id: int
    content: str
    special: bool


class _Step(msgspec.Struct):
    """One pre-tokeniser; a field that the file leaves out is as in `tokenizers`."""

    type: str
    pattern: dict[str, str] = {}
    behavior: str = ""
    invert: bool = False
    add_prefix_space: bool = True
    use_regex: bool = True


class _PreTokenizer(msgspec.Struct):
    type: str
    pretokenizers: list[_Step] = []


class _Model(msgspec.Struct):
    type: str | None = None
    vocab: dict[str, int] | list[object] = {}  # a list if the type is Unigram
    merges: list[str | list[str]] = []
    ignore_merges: bool = False
    byte_fallback: bool = False
    dropout: float | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None


class _File(msgspec.Struct):
    model: _Model
    added_tokens: list[_AddedToken]
    pre_tokenizer: _PreTokenizer | None = None
    normalizer: dict[str, object] | None = None


def read_tokenizer_json(path: Path) -> Vocabulary:
    """Raises CheckpointError, also if the merges disagree with the ids (caravan.text.merges)."""
    content = read_json(path, _File)
    if content.normalizer is not None:
        raise CheckpointError(
            f"{path}: has a normalizer ({content.normalizer.get('type')}); Llama 4 has none"
        )
    pattern = _pattern(content.pre_tokenizer, path)
    special_ids = _special_ids(content.added_tokens, path)
    ids = _ordinary_ids(content.model, special_ids, path)
    vocabulary = Vocabulary(path, _ranks(ids, path), special_ids, pattern)
    conflict = merge_conflict(ids, content.model.merges, ignore_merges=content.model.ignore_merges)
    if conflict:
        raise CheckpointError(f"{path}: the merges disagree with the ids: {conflict}")
    return vocabulary


def _pattern(pre_tokenizer: _PreTokenizer | None, path: Path) -> str:
    match pre_tokenizer.pretokenizers if pre_tokenizer else None:
        case [
            _Step(type="Split", pattern={"Regex": pattern}, behavior="Isolated", invert=False),
            _Step(type="ByteLevel", add_prefix_space=False, use_regex=False),
        ]:
            return str(pattern)
        case _:
            raise CheckpointError(
                f"{path}: 'pre_tokenizer' must be a Split by a Regex (behavior Isolated), then a "
                "ByteLevel without prefix space and regex, as in Llama 4's own file"
            )


def _special_ids(added_tokens: list[_AddedToken], path: Path) -> dict[str, int]:
    for token in added_tokens:
        if not token.special:
            raise CheckpointError(
                f"{path}: the added token {token.content!r} is not special; plain text never "
                "becomes an added token here: set its 'special' to true, or remove it"
            )
    return {token.content: token.id for token in added_tokens}


def _ordinary_ids(model: _Model, special_ids: dict[str, int], path: Path) -> dict[str, int]:
    """The model's tokens in the byte alphabet, without those that are listed as special too."""
    if model.type != "BPE" or not isinstance(model.vocab, dict):
        raise CheckpointError(f"{path}: the model's type is {model.type}; Llama 4's is BPE")
    for name in (
        "byte_fallback",
        "dropout",
        "continuing_subword_prefix",
        "end_of_word_suffix",
    ):
        if value := getattr(model, name):
            raise CheckpointError(f"{path}: the model's '{name}' is {value!r}; Llama 4 has none")
    return {
        token: token_id
        for token, token_id in model.vocab.items()
        if special_ids.get(token) != token_id
    }


def _byte_alphabet() -> dict[int, int]:
    """Code point to byte. Bytes that are no visible Latin-1 character have code points from 256.

    >>> alphabet = _byte_alphabet()
    >>> bytes(alphabet[ord(character)] for character in "Ġcaf\N{LATIN SMALL LETTER E WITH ACUTE}")
    b' caf\\xe9'
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: byte for byte in visible} | {256 + i: byte for i, byte in enumerate(hidden)}


def _ranks(ids: dict[str, int], path: Path) -> dict[bytes, int]:
    alphabet = {chr(point): byte for point, byte in _byte_alphabet().items()}
    try:
        return {bytes([alphabet[c] for c in token]): token_id for token, token_id in ids.items()}
    except KeyError as error:
        raise CheckpointError(
            f"{path}: a token has the character {error.args[0]!r}, which stands for no byte"
        ) from error
