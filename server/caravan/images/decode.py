"""Bytes of an image file become tiles: pure functions of Pillow, run in a child process.

Whatever the bytes are, the outcome is a `TiledImage` or an `InvalidImage`, whose message continues
the name of the field that the picture came from, and never repeats what Pillow says: that can
contain addresses of this process's memory.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator

from PIL import ExifTags, Image, ImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from caravan.errors import (
    EmptyImageFile,
    ImageParseError,
    ImageTooLarge,
    UnsupportedImageMediaType,
)
from caravan.tiles import TiledImage, TileGrid, TileLayout

# What Pillow and the standard library raise on damaged files. MemoryError is not among them: that
# is for the process to handle, which has the limit.
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_WHITE = (255, 255, 255)
_STRIP_PIXELS = 1 << 20  # of the picture that is hashed at once, a copy of 3 MiB

_HIGH_BYTE = [value >> 8 for value in range(1 << 16)]

# Orientation in EXIF, to what puts the picture upright. 1 is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def tile_image(data: bytes, layout: TileLayout, max_tiles: int, max_pixels: int) -> TiledImage:
    """The first frame of a JPEG, PNG, WebP or GIF file, as at most `max_tiles` and a global tile.

    The pixels are those of Meta's code (llama-models, llama4/preprocess.py and chat_format.py), but
    for three things. The picture is upright, and on white wherever it is transparent, as in
    transformers; Meta's code heeds no orientation, and no transparency but RGBA's. And grey of 16
    bits keeps its high byte, as colours of 16 bits do; `convert` would make most of it white.

    Raises EmptyImageFile, UnsupportedImageMediaType, ImageTooLarge (by its header, nothing has been
    decoded yet) or ImageParseError; MemoryError if this process may not have the memory.
    """
    assert max_tiles >= 1, max_tiles
    max_tiles = min(max_tiles, layout.max_tiles)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a file is damaged or it is not; its client reads no log
        picture = _decode(data, max_pixels)
    width, height = picture.size
    grid = layout.grid(width, height, max_tiles)
    return TiledImage(
        key=_key(picture, layout, max_tiles),
        grid=grid,
        tiles=tuple(tile.tobytes() for tile in _tiles(picture, layout, grid)),
    )


def _decode(data: bytes, max_pixels: int) -> Image.Image:
    """The picture, RGB and upright."""
    if not data:
        raise EmptyImageFile("is empty")
    opener = _opener(data)
    try:
        # Before Pillow sees it: the decoder of WebP allocates the whole canvas when it is opened.
        if opener is WebPImageFile and (size := _webp_size(data)):
            _check_size(*size, max_pixels)
        with opener(io.BytesIO(data)) as file:
            _check_size(*file.size, max_pixels)
            file.load()
            _check_size(*file.size, max_pixels)
            upright = _upright(file)
            picture = _rgb(file)
    except Image.DecompressionBombError:  # Pillow found a larger frame in the file than its header
        raise ImageTooLarge(f"has too many pixels; the limit is {max_pixels}") from None
    except _DAMAGED:
        raise ImageParseError("is damaged or ends too early") from None
    return picture if upright is None else picture.transpose(upright)


def _opener(data: bytes) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    """The one reader for the content; no name and no media type is asked, and no other is tried."""
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if data.startswith((b"GIF87a", b"GIF89a")):
        return GifImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile
    raise UnsupportedImageMediaType("is neither a JPEG nor a PNG, WebP or GIF file")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a WebP file. Source: RFC 9649, section 2."""
    kind, header = data[12:16], data[20:30]
    if kind == b"VP8X":
        return 1 + int.from_bytes(header[4:7], "little"), 1 + int.from_bytes(header[7:], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(header[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        sides = int.from_bytes(header[6:8], "little"), int.from_bytes(header[8:], "little")
        return sides[0] & 0x3FFF, sides[1] & 0x3FFF
    return None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"has {width} x {height} pixels, {width * height}; the limit is {max_pixels}"
        )
    if width < 1 or height < 1:
        raise ImageParseError(f"has {width} x {height} pixels; it must have at least one")


def _upright(file: ImageFile.ImageFile) -> Image.Transpose | None:
    """What its EXIF or XMP asks for. Where that is damaged the picture is shown as it is."""
    try:
        return _UPRIGHT.get(file.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGED:
        return None


def _rgb(picture: Image.Image) -> Image.Image:
    """The picture on white, as far as it is transparent. Source: llama4/chat_format.py."""
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return _rgb_of_grey16(picture)
    transparent = "A" in picture.getbands() or picture.info.get("transparency") is not None
    if not transparent:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    canvas = Image.new("RGB", picture.size, _WHITE)
    canvas.paste(picture, mask=picture)
    return canvas


def _rgb_of_grey16(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits, of which one value may be transparent."""
    wide = picture.convert("I")
    grey = wide.point(_HIGH_BYTE, "L")
    hidden = picture.info.get("transparency")
    if hidden is not None:
        mask = wide.point([255 * (value == hidden) for value in range(1 << 16)], "L")
        grey.paste(255, mask=mask)
    return grey.convert("RGB")


def _tiles(picture: Image.Image, layout: TileLayout, grid: TileGrid) -> Iterator[Image.Image]:
    """Row by row, the global tile last."""
    size = layout.tile_size
    canvas = Image.new("RGB", (grid.columns * size, grid.rows * size))
    canvas.paste(
        picture.resize(
            layout.resized(picture.width, picture.height, grid), Image.Resampling.BILINEAR
        )
    )
    for top in range(0, canvas.height, size):
        for left in range(0, canvas.width, size):
            yield canvas.crop((left, top, left + size, top + size))
    if grid.num_tiles > 1:
        yield picture.resize((size, size), Image.Resampling.BILINEAR)


def _key(picture: Image.Image, layout: TileLayout, max_tiles: int) -> bytes:
    """Equal for equal tiles only: everything that determines them, each with its length before it.

    Pixels alone would not do: 2 x 8 and 8 x 2 pixels can have the same bytes.
    """
    width, height = picture.size
    numbers = (width, height, layout.tile_size, layout.tile_tokens, max_tiles)
    digest = hashlib.sha256()
    for field in (b"caravan image 1", b"RGB", *(number.to_bytes(8, "big") for number in numbers)):
        digest.update(len(field).to_bytes(8, "big"))
        digest.update(field)
    digest.update((3 * width * height).to_bytes(8, "big"))
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        digest.update(picture.crop((0, top, width, min(top + rows, height))).tobytes())
    return digest.digest()
