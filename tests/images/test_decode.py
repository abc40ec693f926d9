"""Pixels against Meta's code and transformers, formats, and files that are damaged on purpose."""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageFile, ImageOps
from PIL.PngImagePlugin import PngInfo

from caravan.errors import (
    EmptyImageFile,
    ImageParseError,
    ImageTooLarge,
    InvalidImage,
    UnsupportedImageMediaType,
)
from caravan.images.decode import tile_image
from caravan.tiles import TiledImage, TileGrid, TileLayout
from meta_images import TILE, meta_tiles, photographs

LIMIT = 40_000_000
LAYOUT = TileLayout()
FORMATS = ["JPEG", "PNG", "WEBP", "GIF"]
RANDOM = random.Random(8)


def tiled(
    data: bytes, max_tiles: int = 16, max_pixels: int = LIMIT, layout: TileLayout = LAYOUT
) -> TiledImage:
    return tile_image(data, layout, max_tiles, max_pixels)


def saved(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:  # noqa: A002
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth enough to be a picture, and different everywhere."""
    source = np.random.default_rng(width * 65_536 + height)
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = source.integers(0, 256, (height // 8 + 2, width // 8 + 2, bands), dtype=np.uint8)
    layers = [
        Image.fromarray(np.ascontiguousarray(values[:, :, band])).resize((width, height))
        for band in range(bands)
    ]
    return layers[0] if bands == 1 else Image.merge(mode, layers)


def pixels(image: TiledImage, size: int = TILE) -> Any:
    """uint8 [tiles, 3, size, size]"""
    tiles = np.frombuffer(b"".join(image.tiles), np.uint8)
    return tiles.reshape(-1, size, size, 3).transpose(0, 3, 1, 2)


def decoded(data: bytes) -> Image.Image:
    """The picture of at most 336 x 336 pixels as decoded: on a tile as large, it is not resized."""
    with Image.open(io.BytesIO(data)) as file:
        side = max(file.size)
    image = tiled(data, layout=TileLayout(tile_size=side))
    assert image.grid == TileGrid(1, 1)
    return Image.frombytes("RGB", (side, side), image.tiles[0])


def same(found: Image.Image, expected: Image.Image) -> bool:
    return not ImageChops.difference(found.crop((0, 0, *expected.size)), expected).getbbox()


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)


def claims_to_be_large_png() -> bytes:
    return png_header(50_000, 50_000) + chunk(b"IDAT", zlib.compress(bytes(100)))


def webp(kind: bytes, content: bytes) -> bytes:
    body = b"WEBP" + kind + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


# --- pixels ---------------------------------------------------------------------------------------

SHAPES = [
    *[(1, 1), (1, 5000), (5000, 1), (336, 336), (337, 337), (335, 336), (672, 673), (1344, 336)],
    *[(2, 700), (1345, 1344), (2600, 30), (1920, 1080)],
    *(
        (int(10 ** RANDOM.uniform(0.5, 3.3)), int(10 ** RANDOM.uniform(0.5, 3.3)))
        for _ in range(50)
    ),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_pixels_are_metas(shape: tuple[int, int]) -> None:
    number = SHAPES.index(shape)
    mode, format_ = [("RGB", "PNG"), ("RGB", "JPEG"), ("RGBA", "PNG"), ("L", "JPEG")][number % 4]
    data = saved(noise(*shape, mode), format_)
    max_tiles = 16 if number % 5 else 4
    theirs, canvas = meta_tiles(data, max_tiles)
    ours = tiled(data, max_tiles)
    assert (ours.grid.rows, ours.grid.columns) == canvas
    assert np.abs(pixels(ours) - theirs.numpy()).max() < 1e-3  # equal: theirs are fp32


@pytest.mark.parametrize("path", photographs(), ids=lambda path: path.name)
@pytest.mark.parametrize("max_tiles", [1, 16])
def test_the_pixels_of_photographs_are_metas(path: Path, max_tiles: int) -> None:
    theirs, canvas = meta_tiles(path.read_bytes(), max_tiles)
    ours = tiled(path.read_bytes(), max_tiles)
    assert (ours.grid.rows, ours.grid.columns) == canvas
    assert np.abs(pixels(ours) - theirs.numpy()).max() < 1e-3


def test_low_detail_is_one_tile_without_a_global_one() -> None:
    image = tiled(saved(noise(1000, 700)), max_tiles=1)
    assert image.grid == TileGrid(1, 1)
    assert len(image.tiles) == 1


def test_the_layouts_most_tiles_hold() -> None:
    image = tiled(saved(noise(2000, 2000)), max_tiles=16, layout=TileLayout(max_tiles=4))
    assert image.grid == TileGrid(2, 2)
    assert len(image.tiles) == 5


# --- modes ----------------------------------------------------------------------------------------


def with_hidden(mode: str) -> bytes:
    """A picture of which a part is transparent."""
    if mode in {"RGBA", "LA"}:
        return saved(noise(200, 120, mode))
    if mode == "P, one colour":
        return saved(noise(200, 120).quantize(64), transparency=7)
    if mode == "P, many":
        return saved(noise(200, 120).quantize(64), transparency=bytes(range(0, 256, 4)))
    if mode == "GIF":
        return saved(noise(200, 120).quantize(64), "GIF", transparency=7)
    if mode == "WebP":
        return saved(noise(200, 120, "RGBA"), "WEBP", lossless=True)
    colours: dict[str, int | tuple[int, int, int]] = {"L": 128, "1": 0, "RGB": (10, 20, 30)}
    colour = colours[mode]
    picture = noise(200, 120, "L").convert(mode)
    picture.paste(colour, (20, 20, 90, 90))
    return saved(picture, transparency=colour)


@pytest.mark.parametrize(
    "mode", ["RGBA", "LA", "P, one colour", "P, many", "GIF", "WebP", "L", "1", "RGB"]
)
def test_transparency_is_on_white_as_in_transformers(mode: str) -> None:
    transforms = pytest.importorskip("transformers.image_transforms")
    data = with_hidden(mode)
    with Image.open(io.BytesIO(data)) as file:
        opaque = file.convert("RGBA").convert("RGB")
        theirs = Image.fromarray(transforms.convert_to_rgb(file, return_numpy=True))
    ours = decoded(data).crop((0, 0, *theirs.size))
    difference = np.abs(np.asarray(ours, np.int16) - np.asarray(theirs, np.int16))
    assert difference.max() <= 1
    assert not same(ours, opaque), "some of it is transparent"


def test_a_transparent_picture_is_white() -> None:
    assert same(decoded(saved(Image.new("RGBA", (9, 5)))), Image.new("RGB", (9, 5), "white"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGB"])
def test_what_is_opaque_is_converted_by_pillow(mode: str) -> None:
    picture = noise(200, 120).quantize(64) if mode == "P" else noise(200, 120).convert(mode)
    data = saved(picture, "JPEG" if mode == "CMYK" else "PNG")
    with Image.open(io.BytesIO(data)) as file:
        assert file.mode == mode
        assert same(decoded(data), file.convert("RGB"))


def grey16() -> Any:
    return np.arange(0, 65_536, 24, dtype=np.uint16)[:2700].reshape(300, 9)


def test_grey_of_16_bits_keeps_its_high_byte() -> None:
    values = grey16()
    data = saved(Image.fromarray(values))
    expected = Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    assert same(decoded(data), expected)


def test_grey_of_16_bits_may_have_a_transparent_value() -> None:
    values = grey16()
    hidden = int(values[3, 4])
    expected = (values >> 8).astype(np.uint8)
    expected[values == hidden] = 255
    data = saved(Image.fromarray(values), transparency=hidden)
    assert same(decoded(data), Image.fromarray(expected).convert("RGB"))


def test_colours_of_16_bits_keep_their_high_bytes() -> None:
    values = (np.arange(40 * 30 * 3) * 17).astype(">u2").reshape(30, 40, 3)
    header = struct.pack(">IIBBBBB", 40, 30, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines))
    expected = Image.fromarray((values >> 8).astype(np.uint8))
    assert same(decoded(data + chunk(b"IEND", b"")), expected)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_the_picture_is_upright(orientation: int, format_: str) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    data = saved(noise(200, 120), format_, exif=exif)
    with Image.open(io.BytesIO(data)) as file:
        expected = ImageOps.exif_transpose(file).convert("RGB")
    assert expected.size == ((120, 200) if orientation in {5, 6, 7, 8} else (200, 120))
    assert same(decoded(data), expected)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM", b"\0" * 40])
def test_damaged_exif_is_ignored(exif: bytes) -> None:
    picture = noise(50, 30)
    assert same(decoded(saved(picture, "PNG", exif=exif)), picture)


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_is_shown(format_: str) -> None:
    colours = [Image.new("RGB", (50, 30), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if format_ == "WEBP" else {}
    data = saved(colours[0], format_, save_all=True, append_images=colours[1:], **options)
    assert same(decoded(data), colours[0])


# --- what is refused ------------------------------------------------------------------------------

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
FITS = b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                    8".ljust(80)
OTHERS = {
    **{name: saved(noise(20, 20), name) for name in ("BMP", "TIFF", "ICO", "PPM", "TGA", "PDF")},
    **{name: saved(noise(20, 20), name) for name in ("EPS", "JPEG2000", "PCX", "SGI", "DDS")},
    "SVG": SVG,
    "HTML": b"<!doctype html><title>404</title>",
    "FITS": FITS.ljust(2880),
    "one byte": b"\xff",
    "a name": b"GIF",
    "a video": b"RIFF\x10\0\0\0AVI LIST",
    "noise": RANDOM.randbytes(5000),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedImageMediaType, match=r"^is neither a JPEG nor a PNG, WebP or"):
        tiled(OTHERS[name])


def test_no_bytes_are_refused() -> None:
    with pytest.raises(EmptyImageFile, match=r"^is empty$"):
        tiled(b"")


BOMBS = {
    "PNG": claims_to_be_large_png(),
    "GIF": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0;",
    "VP8X": webp(b"VP8X", b"\0\0\0\0" + b"\xff\xff\0" * 2),
    "VP8L": webp(b"VP8L", b"\x2f" + struct.pack("<I", 16_383 | 16_383 << 14) + bytes(9)),
    "VP8 ": webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383) + bytes(9)),
    "JPEG": saved(Image.new("L", (60, 60)), "JPEG").replace(b"\0\x3c\0\x3c", b"\xff\xfa\xff\xfa"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pixel_bomb_is_refused_by_its_header(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: ImageFile.ImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(
        ImageTooLarge, match=r"^has \d+ x \d+ pixels, \d{9,}; the limit is 40000000$"
    ):
        tiled(BOMBS[name])


def test_the_message_says_the_size_and_the_limit() -> None:
    with pytest.raises(ImageTooLarge, match=r"^has 50 x 30 pixels, 1500; the limit is 1499$"):
        tiled(saved(noise(50, 30)), max_pixels=1499)
    assert tiled(saved(noise(50, 30)), max_pixels=1500)


def test_a_gif_frame_larger_than_its_screen_is_refused() -> None:
    """The screen is 1 x 1; Pillow enlarges it to the frame."""
    frame = b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0;"
    with pytest.raises(ImageTooLarge, match=r"; the limit is 40000000$"):
        tiled(b"GIF89a\x01\0\x01\0\0\0\0" + frame)


def test_a_limit_above_pillows_own_is_obeyed() -> None:
    with pytest.raises(ImageParseError):  # not: too large
        tiled(png_header(20_000, 10_000), max_pixels=1 << 40)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_png_whose_text_is_a_bomb_is_refused(kind: bytes) -> None:
    text = chunk(kind, b"name\0\0" + zlib.compress(bytes(200 << 20)))
    data = saved(noise(20, 20))
    with pytest.raises(ImageParseError):
        tiled(data[:33] + text + data[33:])


def test_text_in_a_png_is_ignored() -> None:
    information = PngInfo()
    information.add_text("Comment", "x" * 1000, zip=True)
    picture = noise(20, 20)
    assert same(decoded(saved(picture, pnginfo=information)), picture)


def test_a_png_of_no_pixels_is_refused() -> None:
    with pytest.raises(InvalidImage):
        tiled(png_header(0, 5) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def some_files() -> list[bytes]:
    exif = Image.Exif()
    exif[0x112] = 6
    animated = {"save_all": True, "append_images": [noise(40, 26)]}
    return [
        *(saved(noise(40, 26), format_) for format_ in FORMATS),
        *(saved(noise(40, 26), format_, exif=exif) for format_ in ("JPEG", "PNG", "WEBP")),
        *(saved(noise(40, 26), format_, **animated) for format_ in ("PNG", "WEBP", "GIF")),
        saved(noise(40, 26), "JPEG", progressive=True, icc_profile=b"profile"),
        saved(noise(40, 26, "CMYK"), "JPEG"),
        saved(noise(40, 26, "RGBA"), "PNG"),
        saved(noise(40, 26, "RGBA"), "WEBP", lossless=True),
        saved(noise(40, 26).quantize(9), "GIF", transparency=3, interlace=True),
        saved(noise(40, 26).quantize(9), "PNG", transparency=b"\0\x80"),
        saved(Image.fromarray(grey16()[:40]), "PNG", transparency=9),
    ]


FILES = some_files()


def outcome(data: bytes) -> TiledImage | InvalidImage:
    """Any other exception fails the test."""
    try:
        return tile_image(data, TileLayout(tile_size=28), 4, 1_000_000)
    except InvalidImage as error:
        return error


@pytest.mark.parametrize("number", range(len(FILES)))
def test_a_file_that_ends_too_early_is_refused(number: int) -> None:
    data = FILES[number]
    assert isinstance(outcome(data), TiledImage)
    half = outcome(data[: len(data) // 2])
    animated = number in {7, 8, 9}  # its first frame may be whole
    assert isinstance(half, ImageParseError) or animated
    for end in range(0, len(data), max(1, len(data) // 250)):
        found = outcome(data[:end])
        if isinstance(found, TiledImage):
            assert animated or end > len(data) - 70, "only what follows the pixels may be missing"
        else:
            assert isinstance(
                found, ImageParseError | EmptyImageFile | UnsupportedImageMediaType
            ), end


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_is_more_than_an_invalid_image(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1) | st.integers(0, min(80, len(damaged) - 1)))
        patch = data.draw(st.binary(min_size=1, max_size=5))
        if data.draw(st.booleans()):
            damaged[at : at + len(patch)] = patch
        else:
            damaged[at:at] = patch
    outcome(bytes(damaged))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x99\0\0\0WEBPVP8X"]),
    st.binary(max_size=200),
)
def test_no_garbage_is_more_than_an_invalid_image(start: bytes, rest: bytes) -> None:
    outcome(start + rest)


# --- keys -----------------------------------------------------------------------------------------


def plain(width: int, height: int) -> bytes:
    return saved(Image.frombytes("RGB", (width, height), bytes(range(3 * width * height))))


def test_one_picture_has_one_key_in_every_lossless_format() -> None:
    picture = noise(900, 20)
    files = [
        saved(picture, "PNG"),
        saved(picture, "PNG", compress_level=1),
        saved(picture, "WEBP", lossless=True),
        saved(picture.convert("RGBA"), "PNG"),
    ]
    assert len({tiled(data) for data in files}) == 1
    assert len(tiled(files[0]).key) == 32


DIFFERENT: list[Callable[[], TiledImage]] = [
    functools.partial(tiled, plain(2, 8)),
    functools.partial(tiled, plain(8, 2)),
    functools.partial(tiled, plain(4, 4)),
    functools.partial(tiled, plain(4, 5)),
    functools.partial(tiled, plain(2, 8), max_tiles=1),
    functools.partial(tiled, plain(2, 8), max_tiles=4),
    functools.partial(tiled, plain(2, 8), layout=TileLayout(tile_size=224)),
    functools.partial(tiled, plain(2, 8), layout=TileLayout(tile_tokens=64)),
]


def test_whatever_makes_other_tiles_makes_another_key() -> None:
    assert len({make().key for make in DIFFERENT}) == len(DIFFERENT)


def test_more_tiles_than_the_layout_has_are_the_same_key() -> None:
    assert tiled(plain(2, 8), max_tiles=99).key == tiled(plain(2, 8), max_tiles=16).key


@pytest.mark.parametrize("at", [(0, 0), (1999, 0), (1000, 800), (1999, 1199)])
def test_every_pixel_counts(at: tuple[int, int]) -> None:
    """Also past the first strip that is hashed."""
    picture = noise(2000, 1200)
    key = tiled(saved(picture, compress_level=1)).key
    red, green, blue = picture.getpixel(at)  # type: ignore[misc]
    picture.putpixel(at, (red ^ 1, green, blue))
    assert tiled(saved(picture, compress_level=1)).key != key
