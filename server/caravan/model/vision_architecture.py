"""Sizes of the vision encoder, from `vision_config` and the image processor's file.

Absent fields have the defaults of Hugging Face's `Llama4VisionConfig`. Those are not the real
models' sizes, so files of real models name theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from caravan.errors import CheckpointError
from caravan.model.fields import Section, read_object
from caravan.tiles import TileLayout

# bounds against damaged files: a layer costs a table entry, a tile costs canvases to choose from
_MOST_LAYERS = 1024
_MOST_TILES = 1024
_MOST_PATCHES = 1024  # of a tile's side
_CHANNELS = 3  # red, green, blue
_BILINEAR = 2  # as Pillow counts resampling filters


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionArchitecture:
    """The encoder that turns tiles into rows beside the word embeddings."""

    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int  # of the MLPs, and `shuffle` x `shuffle` patches side by side
    tile_size: int  # pixels, of a side
    patch_size: int  # pixels, of a side
    shuffle: int  # so many patches of a side become one token's
    adapter_size: int  # of the two layers after the shuffle
    rope_theta: float
    max_tiles: int = 16  # of a canvas; llama-models and transformers have this default

    @property
    def head_dim(self) -> int:
        """Of queries, keys and values."""
        return self.hidden_size // self.num_heads

    @property
    def patches_per_side(self) -> int:
        """Patches of a row, and of a column, of a tile."""
        return self.tile_size // self.patch_size

    @property
    def num_positions(self) -> int:
        """Patches of a tile, and the class token."""
        return self.patches_per_side**2 + 1

    @property
    def patch_elements(self) -> int:
        """Numbers that describe a patch."""
        return _CHANNELS * self.patch_size**2

    @property
    def tile_tokens(self) -> int:
        """Rows that a tile becomes: 144 in the real models."""
        return (self.patches_per_side // self.shuffle) ** 2

    def tile_layout(self) -> TileLayout:
        """What cuts pictures into tiles for this encoder."""
        return TileLayout(
            tile_size=self.tile_size, tile_tokens=self.tile_tokens, max_tiles=self.max_tiles
        )

    @classmethod
    def from_section(cls, vision: Section) -> Self:
        """Reads `vision_config`. Raises CheckpointError for what this release cannot compute."""
        if vision.values.get("hidden_act", "gelu") != "gelu":
            raise vision.refuse("hidden_act", 'Caravan supports "gelu" only')
        if vision.values.get("num_channels", _CHANNELS) != _CHANNELS:
            raise vision.refuse("num_channels", f"Caravan supports {_CHANNELS} only")
        if vision.values.get("multi_modal_projector_bias", False) is not False:
            raise vision.refuse("multi_modal_projector_bias", "Caravan supports false only")
        num_layers = vision.integer("num_hidden_layers", 34)
        if num_layers > _MOST_LAYERS:
            raise vision.refuse("num_hidden_layers", f"it must be at most {_MOST_LAYERS}")
        hidden_size, num_heads = _heads(vision)
        tile_size, patch_size = _side(vision, "image_size", 448), _side(vision, "patch_size", 14)
        shuffle = _shuffle(vision, tile_size, patch_size)
        intermediate_size = vision.integer("intermediate_size", 5632)
        if intermediate_size != hidden_size * shuffle**2:
            raise vision.refuse(
                "intermediate_size",
                f"the adapter reads {shuffle**2} patches of hidden_size {hidden_size} side by "
                f"side, so it must be {hidden_size * shuffle**2}",
            )
        return cls(
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            intermediate_size=intermediate_size,
            tile_size=tile_size,
            patch_size=patch_size,
            shuffle=shuffle,
            adapter_size=_adapter_size(vision),
            rope_theta=_rope_theta(vision),
        )


def read_max_tiles(directory: Path, vision: VisionArchitecture) -> int:
    """The most tiles of a canvas that the directory's image processor makes, or the default.

    Raises CheckpointError if there is a processor whose tiles would be other than Caravan's.
    """
    processor = _image_processor(directory)
    if processor is None:
        return vision.max_tiles
    side = vision.tile_size
    if processor.values.get("size") not in (None, {"height": side, "width": side}):
        raise processor.refuse("size", f"image_size is {side}, so both its sides must be")
    for name, only in (
        ("resize_to_max_canvas", False),
        ("resample", _BILINEAR),
        ("image_mean", [0.5] * _CHANNELS),
        ("image_std", [0.5] * _CHANNELS),
    ):
        if processor.values.get(name) not in (None, only):
            raise processor.refuse(name, f"Caravan supports {str(only).lower()} only")
    max_tiles = processor.integer("max_patches", vision.max_tiles)
    if max_tiles > _MOST_TILES:
        raise processor.refuse("max_patches", f"it must be at most {_MOST_TILES}")
    return max_tiles


def _image_processor(directory: Path) -> Section | None:
    """New files have it inside the processor's; transformers looks there first, too."""
    path = directory / "processor_config.json"
    if path.exists():
        whole = Section(read_object(path), f"{path}: ")
        if whole.values.get("image_processor") is not None:
            return whole.section("image_processor")
    path = directory / "preprocessor_config.json"
    return Section(read_object(path), f"{path}: ") if path.exists() else None


def _heads(vision: Section) -> tuple[int, int]:
    hidden_size = vision.integer("hidden_size", 768)
    num_heads = vision.integer("num_attention_heads", 16)
    if hidden_size % num_heads:
        raise vision.refuse(
            "num_attention_heads", f"it must divide hidden_size, which is {hidden_size}"
        )
    if hidden_size // num_heads % 4:
        raise vision.refuse(
            "num_attention_heads",
            f"heads of {hidden_size // num_heads} cannot be rotated in pairs along two axes: "
            "their size must be divisible by 4",
        )
    return hidden_size, num_heads


def _side(vision: Section, name: str, default: int) -> int:
    """One number, or the same one twice."""
    value = vision.values.get(name)
    if isinstance(value, list):
        if len(value) != 2 or type(value[0]) is not int or value[0] != value[1]:
            raise vision.refuse(name, "Caravan supports squares only: two equal integers")
        return Section({name: value[0]}, vision.where).integer(name, default)
    return vision.integer(name, default)


def _shuffle(vision: Section, tile_size: int, patch_size: int) -> int:
    if tile_size % patch_size:
        raise vision.refuse("image_size", f"patch_size, {patch_size}, must divide it")
    side = tile_size // patch_size
    if side > _MOST_PATCHES:
        raise vision.refuse("image_size", f"a side must have at most {_MOST_PATCHES} patches")
    ratio = vision.number("pixel_shuffle_ratio", 0.5)
    shuffle = round(1 / ratio) if ratio > 1 / (_MOST_PATCHES + 1) else 0
    if shuffle < 1 or ratio != 1 / shuffle:
        raise vision.refuse("pixel_shuffle_ratio", "it must be 1 divided by an integer")
    if side % shuffle:
        raise vision.refuse(
            "pixel_shuffle_ratio", f"a tile has {side} patches per side; {shuffle} must divide it"
        )
    return shuffle


def _adapter_size(vision: Section) -> int:
    size = vision.integer("projector_output_dim", 4096)
    for name, default in (("projector_input_dim", 4096), ("vision_output_dim", 7680)):
        if vision.integer(name, default) != size:
            raise CheckpointError(
                f"{vision.where}{name} is {vision.values.get(name, default)}; it must be "
                f"projector_output_dim, which is {size}"
            )
    return size


def _rope_theta(vision: Section) -> float:
    """Old files: `rope_theta`; new ones: in `rope_parameters`."""
    rope = vision
    if vision.values.get("rope_parameters"):
        inner = vision.section("rope_parameters")
        theta = inner.values.get("rope_theta", vision.values.get("rope_theta", 10000.0))
        rope = Section({**inner.values, "rope_theta": theta}, inner.where)
        if rope.values.get("rope_type", "default") != "default":
            raise rope.refuse("rope_type", 'Caravan supports "default" only')
    elif vision.values.get("rope_scaling"):
        raise vision.refuse("rope_scaling", "Caravan supports none in the vision encoder")
    return rope.number("rope_theta", 10000.0)
