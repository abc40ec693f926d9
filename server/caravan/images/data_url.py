"""Images inside `data:` URLs (RFC 2397), base64 only."""

from __future__ import annotations

import base64
import binascii
import re
import string

from caravan.errors import (
    EmptyImageFile,
    ImageFileTooLarge,
    InvalidBase64Image,
    InvalidImageUrl,
    UnsupportedImageMediaType,
)

_SCHEME = "data:"
_MAX_HEADER_CHARACTERS = 1024  # of what stands before the comma
_MEDIA_TYPES = frozenset(
    {
        "",  # the bytes say what they are
        "application/octet-stream",
        "image/gif",
        "image/jpeg",
        "image/jpg",
        "image/png",
        "image/webp",
    }
)
# What clients percent-encode of base64; every other percent sign is an error.
_ESCAPE = re.compile(rb"%(2[bB]|2[fF]|3[dD])")
_WHITESPACE = string.whitespace.encode()


def decode_data_url(url: str, max_bytes: int) -> bytes:
    """The bytes of `data:[<image type>][;parameter=...];base64,<data>`.

    ASCII whitespace in the data is skipped, and +, / and = may be percent-encoded; apart from that
    the base64 is strict (RFC 4648, section 4, padded). More than `max_bytes` is refused before it
    is decoded. Raises InvalidImageUrl, UnsupportedImageMediaType, InvalidBase64Image,
    ImageFileTooLarge and EmptyImageFile; no message repeats any of the URL.
    """
    comma = url.find(",", 0, _MAX_HEADER_CHARACTERS)
    if url[: len(_SCHEME)].lower() != _SCHEME or comma < 0:
        raise InvalidImageUrl("is not a data URL; write data:image/png;base64,<data>")
    media_type, *parameters = url[len(_SCHEME) : comma].lower().split(";")
    if not parameters or parameters[-1].strip() != "base64":
        raise InvalidImageUrl("is a data URL without base64; write data:image/png;base64,<data>")
    if media_type.strip() not in _MEDIA_TYPES:
        raise UnsupportedImageMediaType(
            "is a data URL of a type that is not supported; "
            "send image/jpeg, image/png, image/webp or image/gif"
        )
    return _decoded(url[comma + 1 :], max_bytes)


def _decoded(text: str, max_bytes: int) -> bytes:
    try:
        data = text.encode("ascii").translate(None, _WHITESPACE)
    except UnicodeEncodeError:
        raise _not_base64() from None
    if b"%" in data:
        data = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), data)
    if not data:
        raise EmptyImageFile("is empty")
    if len(data) % 4:
        raise _not_base64()
    size = len(data) // 4 * 3 - data[-2:].count(b"=")
    if size > max_bytes:
        raise ImageFileTooLarge(f"has {size} bytes; the limit is {max_bytes}")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise _not_base64() from None


def _not_base64() -> InvalidBase64Image:
    return InvalidBase64Image(
        "is not valid base64; use the letters A-Z, a-z, 0-9, + and /, and = as padding to a "
        "multiple of four"
    )
