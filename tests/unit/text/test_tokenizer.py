from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_models.llama4.tokenizer import Tokenizer as Meta

from caravan.errors import CheckpointError
from caravan.text.tokenizer import MAX_RUN_LEN, SLICE_LEN, Tokenizer, UnknownTokenId

TEXTS = (
    "",
    " ",
    "\n",
    "Hello, world!",
    "  leading and trailing  ",
    "tabs\tand\r\nline ends\r\r\n\n\n   \n x",
    "don't I'LL we'Ve ſ'ſ 'sS",
    "0 12 123 1234 12345678901234567890 ٣٤٥ ⅷ ½",
    "def f(x):\n    return {'a': [x**2 for _ in range(10)]}  # done\n\n\n",
    "<|begin_of_text|><|header_start|>system<|header_end|>\n\nObey.<|eot|><|image|><|patch|>",
    "Grüße aus Zürich, façade, naïve, Ångström, e\u0301, Ǆǅǆ",
    "統一碼 日本語のテキスト、한국어 텍스트。ภาษาไทย हिन्दी עברית العربية",
    "👩‍👩‍👧‍👦🏳️‍🌈 🇵🇪😀😃 ☃︎\u200b\u200d\ufeff\ufffd",
    "\x00\x01\x1b[31m\x7f\x80\xa0\u2028\u2029\u3000\x85",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "!?!?....////\n//\\\\--==~~``^^",
    "https://example.org/a?b=c&d=%20#e",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010ffff \ue000",
)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
PRONE_TEXT = st.text(st.sampled_from(" \n\t\u3000aZé'sdmll19.,/<|>統😀\u0301\u200d"), max_size=60)


def meta_encode(meta_tokenizer: Meta, text: str) -> list[int]:
    tokens: list[int] = meta_tokenizer.encode(text, bos=False, eos=False)
    return tokens


@pytest.mark.parametrize("text", TEXTS)
def test_encodes_like_meta_and_back(tokenizer: Tokenizer, meta_tokenizer: Meta, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokens == meta_encode(meta_tokenizer, text)
    assert not any(map(tokenizer.is_special, tokens))
    assert tokenizer.decode(tokens) == text


@given(text=ANY_TEXT | PRONE_TEXT)
@settings(deadline=None)
def test_encodes_any_text_like_meta(tokenizer: Tokenizer, meta_tokenizer: Meta, text: str) -> None:
    assert tokenizer.encode(text) == meta_encode(meta_tokenizer, text)


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizer_json_encodes_like_hugging_face_and_back(
    hub_tokenizer: Tokenizer, hub_oracle: tokenizers.Tokenizer, text: str
) -> None:
    tokens = hub_tokenizer.encode(text)
    assert tokens == hub_oracle.encode(text, add_special_tokens=False).ids
    assert hub_tokenizer.decode(tokens) == text


@given(text=st.text(max_size=60) | PRONE_TEXT)
@settings(deadline=None, max_examples=50)
def test_tokenizer_json_encodes_any_text_like_hugging_face(
    hub_tokenizer: Tokenizer, hub_oracle: tokenizers.Tokenizer, text: str
) -> None:
    assert hub_tokenizer.encode(text) == hub_oracle.encode(text, add_special_tokens=False).ids


@given(ids=st.lists(st.integers(0, 22_047), max_size=30))
@settings(deadline=None)
def test_decodes_any_tokens_like_hugging_face(
    hub_tokenizer: Tokenizer, hub_oracle: tokenizers.Tokenizer, ids: list[int]
) -> None:
    assert hub_tokenizer.decode(ids) == hub_oracle.decode(ids, skip_special_tokens=True)


def _near(length: int) -> Iterable[int]:
    return (length - 1, length, length + 1)


@pytest.mark.parametrize(
    "text",
    [
        *("a" * n for n in _near(MAX_RUN_LEN)),
        *(" " * n for n in _near(MAX_RUN_LEN)),
        *("\n" * n + "x" for n in _near(2 * MAX_RUN_LEN)),
        "ab " + "\u3000" * (MAX_RUN_LEN + 7) + "é" * (2 * MAX_RUN_LEN + 3) + " end",
        "x" * 12_499 + " " + "1" * (MAX_RUN_LEN + 1),
        "x" * 12_501 + " " * MAX_RUN_LEN + "!" * MAX_RUN_LEN,
        "x" * (SLICE_LEN - MAX_RUN_LEN - 1) + "word" * MAX_RUN_LEN,
        *("lorem " * (SLICE_LEN // 6) + "ipsum" * n for n in range(1, 4)),
        "\ud83d" * (MAX_RUN_LEN + 1) + "\ude00",
    ],
    ids=lambda text: f"{len(text)}-{text[:3]!a}",
)
def test_cuts_long_text_where_meta_does(
    tokenizer: Tokenizer, meta_tokenizer: Meta, text: str
) -> None:
    assert tokenizer.encode(text) == meta_encode(meta_tokenizer, text)


@given(
    runs=st.lists(
        st.tuples(
            st.sampled_from(" \na1é"), st.sampled_from([1, 9, 12_499, 12_500, 25_000, 25_001])
        ),
        max_size=6,
    )
)
@settings(deadline=None, max_examples=25)
def test_cuts_any_runs_where_meta_does(
    tokenizer: Tokenizer, meta_tokenizer: Meta, runs: list[tuple[str, int]]
) -> None:
    text = "".join(character * length for character, length in runs)
    assert tokenizer.encode(text) == meta_encode(meta_tokenizer, text)


@pytest.mark.parametrize("unit", ["a", " ", "\U0001f600", " \n", "'s"])
def test_hostile_text_comes_through(tokenizer: Tokenizer, unit: str) -> None:
    """In 0.2 to 0.5 s; pair merging that is quadratic in the text would take an hour."""
    text = unit * (1_000_000 // len(unit))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ids_that_pad_the_model_have_no_text(meta_directory: Path) -> None:
    size = Tokenizer.from_directory(meta_directory).vocab_size
    padded = Tokenizer.from_directory(meta_directory, size + 8)
    assert padded.vocab_size == size + 8
    assert padded.decode([*padded.encode("a"), size, size + 7, *padded.encode("b")]) == "ab"
    with pytest.raises(UnknownTokenId):
        padded.decode([size + 8])


def test_a_model_smaller_than_its_vocabulary_is_refused(meta_directory: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has 202048 tokens and the model 1000"):
        Tokenizer.from_directory(meta_directory, 1000)


@pytest.mark.parametrize(
    ("text", "readable"),
    [("\ud800", "\ufffd"), ("a\udfffb", "a\ufffdb"), ("\ud83d\ude00", "\U0001f600")],
)
def test_lone_surrogates_become_replacement_characters(
    tokenizer: Tokenizer, text: str, readable: str
) -> None:
    assert tokenizer.encode(text) == tokenizer.encode(readable)


def test_special_tokens_are_where_meta_has_them(tokenizer: Tokenizer, meta_tokenizer: Meta) -> None:
    assert tokenizer.vocab_size == meta_tokenizer.n_words == 202_048
    assert tokenizer.bos_id == meta_tokenizer.bos_id
    assert tokenizer.stop_ids == tuple(meta_tokenizer.stop_tokens)
    for name, token_id in meta_tokenizer.special_tokens.items():
        assert tokenizer.special_id(name) == token_id
        assert tokenizer.is_special(token_id)
        assert tokenizer.token_bytes(token_id) == name.encode()
        assert tokenizer.text_bytes(token_id) == b""
    assert len(meta_tokenizer.special_tokens) == 2048
    with pytest.raises(KeyError):
        tokenizer.special_id("<|no_such_token|>")


def test_ordinary_tokens_have_their_bytes(tokenizer: Tokenizer, meta_tokenizer: Meta) -> None:
    for token_id in random.Random(0).sample(range(200_000), 2000):
        expected = meta_tokenizer.model.decode_single_token_bytes(token_id)
        assert tokenizer.token_bytes(token_id) == tokenizer.text_bytes(token_id) == expected
        assert not tokenizer.is_special(token_id)


def test_decode_leaves_special_tokens_out_and_joins_bytes_across_them(
    tokenizer: Tokenizer,
) -> None:
    first, second = (tokenizer.encode("\u00e9")[0], tokenizer.special_id("<|eot|>"))
    assert tokenizer.decode([second, first, second]) == "é"
    lead, rest = (bytes_id(tokenizer, byte) for byte in "é".encode())
    assert tokenizer.decode([lead, second, rest]) == "é"
    assert tokenizer.decode([rest, second, lead]) == "\ufffd\ufffd"


def bytes_id(tokenizer: Tokenizer, byte: int) -> int:
    return next(i for i in range(300) if tokenizer.text_bytes(i) == bytes([byte]))


@pytest.mark.parametrize("token_id", [-1, -202_048, 202_048, 1 << 64])
def test_unknown_ids_are_refused(tokenizer: Tokenizer, token_id: int) -> None:
    for use in (tokenizer.token_bytes, tokenizer.text_bytes, lambda i: tokenizer.decode([0, i])):
        with pytest.raises(UnknownTokenId, match=f"{token_id} is not between 0 and 202047") as info:
            use(token_id)
        assert (info.value.token_id, info.value.vocab_size) == (token_id, 202_048)
    assert not tokenizer.is_special(token_id)


def test_both_files_give_the_same_tokenizer(
    small_model_directory: Path, hub_tokenizer: Tokenizer
) -> None:
    from_model = Tokenizer.from_directory(small_model_directory)
    assert from_model.vocab_size == hub_tokenizer.vocab_size == 22_048
    for token_id in range(22_048):
        assert from_model.token_bytes(token_id) == hub_tokenizer.token_bytes(token_id)
        assert from_model.is_special(token_id) == hub_tokenizer.is_special(token_id)
    for text in TEXTS:
        assert from_model.encode(text) == hub_tokenizer.encode(text)


def test_tokenizer_json_goes_first(
    meta_directory: Path, hub_directory: Path, tmp_path: Path
) -> None:
    shutil.copy(meta_directory / "tokenizer.model", tmp_path)
    shutil.copy(hub_directory / "tokenizer.json", tmp_path)
    assert Tokenizer.from_directory(tmp_path).vocab_size == 22_048


def test_a_directory_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor tokenizer\.model"):
            Tokenizer.from_directory(directory)
