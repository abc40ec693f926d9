from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from caravan.errors import CheckpointError
from caravan.text.tokenizer import Tokenizer
from caravan.text.tokenizer_json import read_tokenizer_json
from caravan.text.vocabulary import REQUIRED_SPECIALS

CORPUS = Path(__file__).read_text()
Change = Callable[[dict[str, Any]], object]


def train(*, specials_first: bool) -> dict[str, Any]:
    """A small vocabulary as `tokenizers` trains and writes it."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+|\w+|[^\s\w]+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = list(REQUIRED_SPECIALS)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=specials if specials_first else [],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer.add_special_tokens(specials)
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


@pytest.fixture(scope="module")
def content() -> str:
    return json.dumps(train(specials_first=False))


def write(directory: Path, content: object) -> Path:
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("specials_first", [False, True])
def test_a_trained_vocabulary_encodes_like_hugging_face(
    tmp_path: Path, specials_first: bool
) -> None:
    path = write(tmp_path, train(specials_first=specials_first))
    ours = Tokenizer.from_directory(tmp_path)
    oracle = tokenizers.Tokenizer.from_file(str(path))
    oracle.encode_special_tokens = True
    assert ours.special_id("<|begin_of_text|>") == (0 if specials_first else 600)
    assert ours.vocab_size == (600 if specials_first else 606)
    for text in (*CORPUS.splitlines(), CORPUS, CORPUS[::-1], "Größe 統一 \x00 <|eot|>"):
        tokens = ours.encode(text)
        assert tokens == oracle.encode(text).ids
        assert ours.decode(tokens) == text


def test_merges_as_strings_are_read_too(tmp_path: Path, content: str) -> None:
    modern = json.loads(content)
    old = json.loads(content)
    old["model"]["merges"] = [" ".join(pair) for pair in modern["model"]["merges"]]
    assert modern["model"]["merges"] != old["model"]["merges"]
    read = read_tokenizer_json(write(tmp_path, old))
    assert read == read_tokenizer_json(write(tmp_path, modern))


def swap_merges(file: dict[str, Any]) -> None:
    merges = file["model"]["merges"]
    merges[10], merges[200] = merges[200], merges[10]


REFUSED: dict[str, tuple[Change, str]] = {
    "normalizer": (
        lambda file: file.update(normalizer={"type": "NFC"}),
        r"has a normalizer \(NFC\); Llama 4 has none",
    ),
    "unigram": (
        lambda file: file["model"].update(type="Unigram", vocab=[["a", -1.0]]),
        "the model's type is Unigram; Llama 4's is BPE",
    ),
    "wordpiece": (lambda file: file["model"].update(type="WordPiece"), "type is WordPiece"),
    "byte fallback": (
        lambda file: file["model"].update(byte_fallback=True),
        "the model's 'byte_fallback' is True",
    ),
    "dropout": (lambda file: file["model"].update(dropout=0.1), r"'dropout' is 0\.1"),
    "prefix": (
        lambda file: file["model"].update(continuing_subword_prefix="##"),
        "'continuing_subword_prefix' is '##'",
    ),
    "suffix": (
        lambda file: file["model"].update(end_of_word_suffix="</w>"),
        "'end_of_word_suffix' is '</w>'",
    ),
    "no pre-tokenizer": (lambda file: file.update(pre_tokenizer=None), "'pre_tokenizer' must be"),
    "other pre-tokenizer": (
        lambda file: file.update(pre_tokenizer={"type": "Whitespace"}),
        "'pre_tokenizer' must be",
    ),
    "prefix space": (
        lambda file: file["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
        "'pre_tokenizer' must be",
    ),
    "two patterns": (
        lambda file: file["pre_tokenizer"]["pretokenizers"][1].update(use_regex=True),
        "'pre_tokenizer' must be",
    ),
    "string pattern": (
        lambda file: file["pre_tokenizer"]["pretokenizers"][0].update(pattern={"String": " "}),
        "'pre_tokenizer' must be",
    ),
    "removed pieces": (
        lambda file: file["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"),
        "'pre_tokenizer' must be",
    ),
    "inverted": (
        lambda file: file["pre_tokenizer"]["pretokenizers"][0].update(invert=True),
        "'pre_tokenizer' must be",
    ),
    "ordinary added token": (
        lambda file: file["added_tokens"].append({"id": 606, "content": "<x>", "special": False}),
        "the added token '<x>' is not special",
    ),
    "missing special": (
        lambda file: file["added_tokens"].pop(),
        r"no special token <\|eot\|>, which Llama 4's chat format needs",
    ),
    "hole": (
        lambda file: file["added_tokens"].append({"id": 700, "content": "<x>", "special": True}),
        "ids 0 to 606, each once: no token has the id 606",
    ),
    "id twice": (
        lambda file: file["added_tokens"].append({"id": 605, "content": "<x>", "special": True}),
        "no token has the id 606",
    ),
    "foreign character": (
        lambda file: file["model"]["vocab"].update({"a b": 606}),
        "a token has the character ' ', which stands for no byte",
    ),
    "missing byte": (
        lambda file: file["model"]["vocab"].update(
            {"\u0100\u0100\u0101": file["model"]["vocab"].pop("\u0100")}
        ),
        "no token for the byte 0x00",
    ),
    "merge order": (swap_merges, "merges must stand in the order of the ids they make"),
    "missing merge": (
        lambda file: file["model"]["merges"].pop(100),
        "the merges disagree with the ids: by the ids, token .* but no merge says so",
    ),
    "broken merge": (
        lambda file: file["model"]["merges"].append(["a", "b", "c"]),
        r"merge 344 \(\['a', 'b', 'c'\]\) does not join two tokens to a third",
    ),
    "merge of unknown tokens": (
        lambda file: file["model"]["merges"].append("\u4e00 \u4e01"),
        "does not join two tokens to a third",
    ),
    "wrong type": (
        lambda file: file["model"]["vocab"].update(a="one"),
        r"damaged, or not a file of its kind: .*\$\.model\.vocab",
    ),
    "no model": (lambda file: file.pop("model"), "missing required field `model`"),
    "no added tokens": (lambda file: file.pop("added_tokens"), "required field `added_tokens`"),
    "no type": (lambda file: file["model"].pop("type"), "type is None"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_would_tokenise_otherwise_are_refused(
    tmp_path: Path, content: str, name: str
) -> None:
    change, reason = REFUSED[name]
    file = json.loads(content)
    read_tokenizer_json(write(tmp_path, file))
    change(file)
    path = write(tmp_path, file)
    with pytest.raises(CheckpointError, match=reason) as info:
        read_tokenizer_json(path)
    assert str(path) in str(info.value)


def test_a_pattern_that_is_no_regular_expression_is_refused(tmp_path: Path, content: str) -> None:
    file = json.loads(content)
    file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(unclosed"
    write(tmp_path, file)
    with pytest.raises(CheckpointError, match="pattern is not a regular expression"):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"added_tokens": [{"id": 1, "content": "\xff", "special": true}]}',
        b'{"normalizer": ' + b'{"a":' * 100_000,
    ],
    ids=lambda damaged: repr(damaged[:20]),
)
def test_damaged_json_is_refused(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: damaged, or not a file of its"):
        Tokenizer.from_directory(tmp_path)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: cannot be read: Is a directory"):
        Tokenizer.from_directory(tmp_path)
