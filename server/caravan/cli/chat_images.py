"""Pictures of a conversation: from a path that somebody typed to a part of a message."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path

from caravan.config import ImageConfig
from caravan.errors import ConfigError

Part = dict[str, object]

MAX_IMAGE_BYTES: int = ImageConfig().max_image_bytes  # of a server without flags
_HEAD_BYTES = 12  # that tell the type


def image_part(path: str) -> Part:
    """The picture as an `image_url` part. Raises ConfigError, which names the path."""
    file = typed_path(path)
    try:
        if not file.is_file():
            raise ConfigError(f"{path} is no file")
        with file.open("rb") as opened:
            data = opened.read(MAX_IMAGE_BYTES + 1)
    except (OSError, ValueError):  # ValueError: a character that no path has
        raise ConfigError(f"{path} cannot be read") from None
    if len(data) > MAX_IMAGE_BYTES:
        raise ConfigError(f"{path} has more than {MAX_IMAGE_BYTES} bytes")
    media_type = _media_type(data)
    if media_type is None:
        raise ConfigError(f"{path} is neither a JPEG nor a PNG, WebP or GIF file")
    url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def is_image_path(text: str) -> bool:
    """Whether a message is nothing but the path of a picture: one that was dropped here, say."""
    if "\n" in text:
        return False
    file = typed_path(text)
    try:
        if not file.is_file():
            return False
        with file.open("rb") as opened:
            return _media_type(opened.read(_HEAD_BYTES)) is not None
    except (OSError, ValueError):  # ValueError: a character that no path has
        return False


def typed_path(text: str) -> Path:
    """A path as it is, or quoted as for a shell, which is how terminals paste it."""
    text = text.strip()
    plain = _expanded(text)
    try:
        if plain.exists():
            return plain
        words = shlex.split(text)
    except (OSError, ValueError):  # too long for a path; an open quote
        return plain
    return _expanded(words[0]) if len(words) == 1 else plain


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user
        return Path(text)


def _media_type(data: bytes) -> str | None:
    """By the first bytes, as the server does it; no name is asked."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return None
