"""Oracle: Meta's image code, over Pillow and torch alone.

Of torchvision it needs five things, which are written here as torchvision does them on a picture
of Pillow. Nothing stays behind: no module that knows the stub, and not the
`LOAD_TRUNCATED_IMAGES = True` that Meta's code sets for the whole process.
"""

from __future__ import annotations

import collections
import functools
import importlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

TILE = 336
PACKAGE = "llama_models.llama4"
MODULES = ("preprocess", "chat_format")


class Compose:
    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        return functools.reduce(lambda value, transform: transform(value), self.transforms, image)


class Resize:
    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, image: Any) -> Any:
        return resize(image, self.size, Image.Resampling.BILINEAR)


class ToTensor:
    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32).div(255)


class Normalize:
    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool) -> None:
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.sub(self.mean).div(self.std)


def resize(image: Any, size: tuple[int, int], interpolation: Image.Resampling) -> Any:
    """To `size`, height first."""
    return image.resize((size[1], size[0]), interpolation)


def torchvision() -> dict[str, ModuleType]:
    """The modules that Meta's code imports."""
    package, transforms, functional = (
        ModuleType(name)
        for name in (
            "torchvision",
            "torchvision.transforms",
            "torchvision.transforms.functional",
        )
    )
    vars(functional).update(resize=resize)
    vars(transforms).update(
        functional=functional,
        Compose=Compose,
        Resize=Resize,
        ToTensor=ToTensor,
        Normalize=Normalize,
        InterpolationMode=SimpleNamespace(BILINEAR=Image.Resampling.BILINEAR),
    )
    vars(package).update(transforms=transforms, __path__=[])
    return {module.__name__: module for module in (package, transforms, functional)}


@contextmanager
def _nothing_left() -> Iterator[None]:
    """Within it Meta's modules are imported anew; after it all is as before."""
    package = importlib.import_module(PACKAGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
        for name, module in torchvision().items():
            patch.setitem(sys.modules, name, module)
        for name in MODULES:
            # Undone, both of them: what was not there is deleted, what was there comes back.
            patch.setitem(sys.modules, f"{PACKAGE}.{name}", ModuleType(name))
            patch.setattr(package, name, None, raising=False)
            del sys.modules[f"{PACKAGE}.{name}"]
        yield


@functools.cache
def modules() -> tuple[Any, Any]:
    """Meta's `preprocess` and `chat_format`."""
    with _nothing_left():
        preprocess, chat_format = (importlib.import_module(f"{PACKAGE}.{name}") for name in MODULES)
    return preprocess, chat_format


def chat_format(tokenizer: Any, max_tiles: int = 16) -> Any:
    """Meta's ChatFormat of a model with pictures."""
    arguments = importlib.import_module(f"{PACKAGE}.args")
    vision = arguments.VisionArgs(
        image_size=arguments.Size(height=TILE, width=TILE),
        patch_size=arguments.Size(height=14, width=14),
        dim=1408,
        n_layers=34,
        n_heads=16,
        mlp_ratio=4.0,
        output_dim=4096,
        pixel_shuffle_ratio=0.5,
    )
    return modules()[1].ChatFormat(tokenizer, vision, max_num_chunks=max_tiles)


def _encoded(data: bytes, tokenizer: Any, max_tiles: int) -> tuple[list[int], Any]:
    media = importlib.import_module("llama_models.datatypes").RawMediaItem(data=io.BytesIO(data))
    tokens, (image,) = chat_format(tokenizer, max_tiles)._encode_content([media])
    return tokens, image


def meta_tiles(data: bytes, max_tiles: int = 16) -> tuple[torch.Tensor, tuple[int, int]]:
    """fp32 [tiles, 3, 336, 336] of 0 to 255, the global tile last; rows and columns."""
    nobody = SimpleNamespace(special_tokens=collections.defaultdict(int))
    _, image = _encoded(data, nobody, max_tiles)
    tiles = image.image_tiles.reshape(-1, 3, TILE, TILE)
    return (tiles * 0.5 + 0.5) * 255, image.aspect_ratio


def meta_image_tokens(data: bytes, tokenizer: Any, max_tiles: int = 16) -> list[int]:
    """The tokens of a picture, from <|image_start|> to <|image_end|>."""
    return _encoded(data, tokenizer, max_tiles)[0]


class _Sized:
    """A picture without pixels."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def resize(self, size: tuple[int, int], _: Image.Resampling) -> _Sized:
        return _Sized(size)


def meta_sizes(
    width: int, height: int, max_tiles: int = 16
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of the canvas; width and height of the picture on it."""
    transform = modules()[0].VariableSizeImageTransform(TILE)
    resolutions = torch.tensor(transform.find_supported_resolutions(max_tiles, TILE))
    canvas = transform.get_best_fit((width, height), resolutions)
    resized = transform.resize_without_distortion(_Sized((width, height)), canvas, TILE)
    return (canvas[1] // TILE, canvas[0] // TILE), resized.size


def photographs() -> list[Path]:
    """Two that come with Meta's code."""
    folder = Path(importlib.import_module("llama_models").__path__[0]) / "resources"
    return [folder / "dog.jpg", folder / "pasta.jpeg"]
