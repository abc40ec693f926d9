from __future__ import annotations

import base64
from pathlib import Path

import pytest

from caravan.errors import CheckpointError
from caravan.text.tokenizer_model import read_tokenizer_model, special_names
from caravan.text.vocabulary import Vocabulary


def lines(tokens: list[bytes]) -> list[str]:
    return [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens)]


BYTES = [bytes([byte]) for byte in range(256)]


def read(directory: Path, content: str | bytes) -> Vocabulary:
    path = directory / "tokenizer.model"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_tokenizer_model(path)


def test_special_tokens_follow_the_ranks(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, "\n".join(["", *lines([*BYTES, b"ab"]), "", ""]))
    assert vocabulary.ranks[b"ab"] == 256
    assert vocabulary.special_ids["<|begin_of_text|>"] == 257
    assert max(vocabulary.special_ids.values()) == 256 + 2048
    assert len(set(special_names())) == 2048


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no token for the byte 0x00"),
        ("\n".join(lines(BYTES[:200] + BYTES[201:])), "no token for the byte 0xc8"),
        ("AA==\n", r"line 1 is not a token in base64 and its rank"),
        ("AA== 0\nAQ== one\n", r"line 2 is not a token in base64 and its rank"),
        ("AA== 0\n\n?!== 1\n", r"line 3 is not a token in base64 and its rank"),
        ("AA== 0\nA 1\n", r"line 2 is not a token in base64 and its rank"),
        ("\n".join(lines(BYTES)[1:]), "no token has the id 0"),
        ("\n".join([*lines(BYTES), "YWI= 257"]), "no token has the id 256"),
        ("\n".join([*lines(BYTES), "YWI= 7"]), "no token has the id 256"),
        ("\n".join([*lines(BYTES), "YQ== 256"]), "no token has the id 97"),
        (b"\x00\xff\xfe garbage \x80", "line 1 is not"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: str | bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason) as info:
        read(tmp_path, content)
    assert str(tmp_path / "tokenizer.model") in str(info.value)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").mkdir()
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: cannot be read: Is a directory"):
        read_tokenizer_model(tmp_path / "tokenizer.model")
