"""Images inside data URLs: lenient about the header's form, strict about the base64."""

from __future__ import annotations

import base64
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caravan.errors import (
    EmptyImageFile,
    ImageFileTooLarge,
    InvalidBase64Image,
    InvalidImage,
    InvalidImageUrl,
    UnsupportedImageMediaType,
)
from caravan.images.data_url import decode_data_url

LIMIT = 1 << 20


@given(st.binary(min_size=1, max_size=200))
def test_what_the_standard_library_encodes_comes_back(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    assert decode_data_url(f"data:image/png;base64,{encoded}", LIMIT) == data
    escaped = encoded.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D")
    assert decode_data_url(f"data:image/png;base64,{escaped}", LIMIT) == data
    lines = base64.encodebytes(data).decode().replace("\n", "\r\n\t ")
    assert decode_data_url(f"data:image/png;base64,{lines}", LIMIT) == data


@pytest.mark.parametrize(
    "header",
    [
        "data:image/png;base64", "data:image/jpeg;base64", "data:image/jpg;base64",
        "data:image/webp;base64", "data:image/gif;base64", "DATA:IMAGE/PNG;BASE64",
        "data:;base64", "data:image/png;charset=utf-8;base64", "data:image/png;a=b;c=d; base64",
        "data:application/octet-stream;base64", "data: image/png ;base64",
    ],
)  # fmt: skip
def test_headers(header: str) -> None:
    assert decode_data_url(header + ",aGk=", LIMIT) == b"hi"


@pytest.mark.parametrize(
    "url",
    [
        "", "data", "data:", "data:image/png;base64", "data:image/png;base64;aGk=",
        "data:image/png,aGk=", "data:,aGk=", "data:base64,aGk=", "data:image/png;base64;x=y,aGk=",
        "data:image/png;base32,aGk=", "http://a/;base64,aGk=", " data:image/png;base64,aGk=",
        "data:image/png;" + "x" * 2000 + ";base64,aGk=",
    ],
)  # fmt: skip
def test_what_is_no_base64_data_url(url: str) -> None:
    with pytest.raises(InvalidImageUrl):
        decode_data_url(url, LIMIT)


@pytest.mark.parametrize(
    "media_type",
    [
        "image/svg+xml", "image/tiff", "image/bmp", "image/avif", "image/", "image", "text/plain",
        "application/json", "image/*", "image/png2", "video/mp4",
    ],
)  # fmt: skip
def test_media_types_that_are_refused(media_type: str) -> None:
    with pytest.raises(UnsupportedImageMediaType):
        decode_data_url(f"data:{media_type};base64,aGk=", LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        "aGk", "aGkx=", "aGk==", "a", "=", "==", "====", "aG=k", "aGk=aGk=", "aGk=====", "aG-_",
        "aGk!", "aG\u00e9=", "aGk\ud800", "aG\x00k", "aGk%20", "%61GkxaGkx", "aGk%3", "%%%%",
        "aGk=#x==", "data:image/png;base64,aGk=",
    ],
)  # fmt: skip
def test_strict_base64(data: str) -> None:
    with pytest.raises(InvalidBase64Image):
        decode_data_url("data:image/png;base64," + data, LIMIT)


@pytest.mark.parametrize("data", ["", " ", "\n\t"])
def test_nothing(data: str) -> None:
    with pytest.raises(EmptyImageFile):
        decode_data_url("data:image/png;base64," + data, LIMIT)


@pytest.mark.parametrize("size", [30, 31, 32])
def test_the_limit_is_exact(size: int) -> None:
    url = "data:image/png;base64," + base64.b64encode(bytes(size)).decode()
    assert len(decode_data_url(url, size)) == size
    with pytest.raises(ImageFileTooLarge, match=f"has {size} bytes; the limit is {size - 1}"):
        decode_data_url(url, size - 1)


def test_what_is_too_large_is_not_decoded() -> None:
    url = "data:image/png;base64," + "A" * 4_000_000
    tracemalloc.start()
    with pytest.raises(ImageFileTooLarge):
        decode_data_url(url, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * 4_100_000  # the text, cut off, as bytes, and without white space


@pytest.mark.parametrize(
    "url",
    [
        "SECRET", "data:image/SECRET;base64,aGk=", "data:image/png;SECRET,aGk=",
        "data:image/png;base64,SECRET!", "data:image/png;base64,SECRET" + "SECRET" * 500_000,
    ],
)  # fmt: skip
def test_messages_continue_a_name_and_repeat_nothing(url: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        decode_data_url(url, LIMIT)
    message = caught.value.message
    assert "secret" not in message.lower()
    assert message.startswith(("is ", "has "))
    assert not message.endswith(".")
