"""Oracles: Meta's tokenizer and chat format, and Hugging Face's `tokenizers`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tokenizers
from llama_models.llama4.tokenizer import Tokenizer as Meta

from caravan.text.tokenizer import Tokenizer

# Meta's first tokens are a vocabulary of their own, and quick to load.
NUM_SMALL_RANKS = 20_000


@pytest.fixture(scope="session")
def meta_directory() -> Path:
    spec = importlib.util.find_spec("llama_models.llama4")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="session")
def meta_tokenizer() -> Meta:
    return Meta.get_instance()


@pytest.fixture(scope="session")
def meta_chat_format() -> ModuleType:
    """The module, imported without torch and torchvision, which only its image code uses."""
    torch = ModuleType("torch")
    preprocess = ModuleType("llama_models.llama4.preprocess")
    vars(torch)["Tensor"] = object
    vars(preprocess).update(ResizeNormalizeImageTransform=None, VariableSizeImageTransform=None)
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, preprocess.__name__, preprocess)
        module = importlib.import_module("llama_models.llama4.chat_format")
    for name in set(sys.modules) - before:
        if name.startswith("llama_models.llama4"):
            del sys.modules[name]  # it knows the stubs
    return module


@pytest.fixture(scope="session")
def tokenizer(meta_directory: Path) -> Tokenizer:
    """Ours, with Meta's own vocabulary."""
    return Tokenizer.from_directory(meta_directory)


@pytest.fixture(scope="session")
def small_model_directory(meta_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.model with the first ranks of Meta's."""
    lines = (meta_directory / "tokenizer.model").read_bytes().splitlines(keepends=True)
    directory = tmp_path_factory.mktemp("model")
    (directory / "tokenizer.model").write_bytes(b"".join(lines[:NUM_SMALL_RANKS]))
    return directory


@pytest.fixture(scope="session")
def hub_directory(
    small_model_directory: Path,
    meta_tokenizer: Meta,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The same vocabulary as tokenizer.json, converted by `transformers`."""
    converter = importlib.import_module("transformers.convert_slow_tokenizer").TikTokenConverter(
        vocab_file=str(small_model_directory / "tokenizer.model"),
        pattern=meta_tokenizer.O200K_PATTERN,
        extra_special_tokens=list(meta_tokenizer.special_tokens),
    )
    directory = tmp_path_factory.mktemp("hub")
    converter.converted().save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="session")
def hub_tokenizer(hub_directory: Path) -> Tokenizer:
    """Ours, from the converted file."""
    return Tokenizer.from_directory(hub_directory)


@pytest.fixture(scope="session")
def hub_oracle(hub_directory: Path) -> tokenizers.Tokenizer:
    """Hugging Face's, from the converted file; text that spells a special token is text."""
    oracle = tokenizers.Tokenizer.from_file(str(hub_directory / "tokenizer.json"))
    oracle.encode_special_tokens = True
    return oracle
