"""Pictures in chat requests: what the engine is given, what the client is told."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import openai
import pytest
from fastapi import FastAPI
from PIL import Image

from api.conftest import MODEL
from api.fake_engine import FakeEngine, say
from caravan.api import images as api_images
from caravan.api.images import ImageLoader, ImageSource
from caravan.config import ImageConfig
from caravan.errors import FailedToDownloadImage, ImageTooLarge, Overloaded
from caravan.images.fetch import ImageFetcher
from caravan.text.tokenizer import Tokenizer
from caravan.tiles import TileLayout

PATCH = "<|patch|>"


def png(width: int = 8, height: int = 8, color: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (color, 1, 2)).save(file, "PNG")
    return file.getvalue()


def url_of(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def shown(url: str, **fields: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


ONE = f"<|image_start|><|image|>{PATCH * 4}<|image_end|>"
# 16 x 8 pixels on two tiles beside each other, and the global one
WIDE = (
    f"<|image_start|>{PATCH * 4}<|tile_x_separator|>{PATCH * 4}<|tile_y_separator|>"
    f"<|image|>{PATCH * 4}<|image_end|>"
)
TALL = (
    f"<|image_start|>{PATCH * 4}<|tile_y_separator|>{PATCH * 4}<|tile_y_separator|>"
    f"<|image|>{PATCH * 4}<|image_end|>"
)


def spelled(tokenizer: Tokenizer, tokens: list[int]) -> str:
    return b"".join(map(tokenizer.token_bytes, tokens)).decode()


class PlayedFetcher(ImageFetcher):
    """Gives files by their URL; `hang` never comes, and says whether it was given up."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(ImageConfig())
        self.files = files
        self.asked: list[str] = []
        self.given_up = 0

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if url.endswith("hang"):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.given_up += 1
                raise
        if url not in self.files:
            raise FailedToDownloadImage("could not be downloaded")
        return self.files[url]


@pytest.fixture
def fetcher() -> PlayedFetcher:
    return PlayedFetcher({"http://a/wide.png": png(16, 8), "https://a/tall.png": png(8, 16)})


@pytest.fixture
async def images(image_config: ImageConfig, fetcher: PlayedFetcher) -> AsyncIterator[ImageLoader]:
    layout = TileLayout(tile_size=8, tile_tokens=4, max_tiles=4)
    async with ImageLoader(image_config, layout, fetcher) as loader:
        yield loader


async def ask(http: httpx.AsyncClient, *messages: dict[str, Any], **fields: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": messages, **fields}
    return await http.post("/v1/chat/completions", json=body)


async def test_pictures_and_texts_in_any_order(
    http: httpx.AsyncClient, engine: FakeEngine, tokenizer: Tokenizer
) -> None:
    messages = [
        user(shown(url_of(png())), text("a"), shown("http://a/wide.png"), text("b")),
        {"role": "assistant", "content": "c"},
        user(text("d"), shown("https://a/tall.png")),
    ]
    answer = await ask(http, *messages)
    (submission,) = engine.submits[0]
    prompt, pictures = submission.prompt, submission.images
    head = "<|header_start|>{}<|header_end|>\n\n"
    assert spelled(tokenizer, prompt) == (
        f"<|begin_of_text|>{head.format('user')}{ONE}a{WIDE}b<|eot|>"
        f"{head.format('assistant')}c<|eot|>{head.format('user')}d{TALL}<|eot|>"
        f"{head.format('assistant')}"
    )
    assert [len(starts) for _, starts in pictures] == [1, 3, 3]
    patches = [i for i, token in enumerate(prompt) if token == tokenizer.special_id(PATCH)]
    assert patches == [start + i for _, starts in pictures for start in starts for i in range(4)]
    assert [image.grid.num_tiles for image, _ in pictures] == [1, 3, 3]
    assert {len(tile) for image, _ in pictures for tile in image.tiles} == {8 * 8 * 3}
    image_tokens = (3 + 4) + (5 + 3 * 4) * 2
    usage = answer.json()["usage"]
    assert usage["prompt_tokens"] == len(prompt)
    assert usage["prompt_tokens_details"] == {
        "cached_tokens": 0,
        "text_tokens": len(prompt) - image_tokens,
        "image_tokens": image_tokens,
    }
    tokens = await http.post("/tokenize", json={"messages": messages})
    assert tokens.json()["tokens"] == prompt


async def test_with_the_sdk_and_streamed(
    client: openai.OpenAI, engine: FakeEngine, tokenizer: Tokenizer
) -> None:
    def run() -> None:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What?"},
                        {
                            "type": "image_url",
                            "image_url": {"url": url_of(png()), "detail": "high"},
                        },
                    ],
                }
            ],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        details = chunks[-1].usage and chunks[-1].usage.prompt_tokens_details
        assert details
        assert details.model_dump()["image_tokens"] == 7

    await asyncio.to_thread(run)
    assert f"What?{ONE}" in spelled(tokenizer, engine.submits[0][0].prompt)


@pytest.mark.parametrize(("detail", "tiles"), [("auto", 3), ("high", 3), ("low", 1)])
async def test_detail(http: httpx.AsyncClient, engine: FakeEngine, detail: str, tiles: int) -> None:
    await ask(http, user(shown(url_of(png(16, 8)), detail=detail)))
    ((image, starts),) = engine.submits[0][0].images
    assert len(image.tiles) == len(starts) == tiles


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
async def test_formats(http: httpx.AsyncClient, engine: FakeEngine, kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(file, kind)
    answer = await ask(http, user(shown(url_of(file.getvalue(), f"image/{kind.lower()}"))))
    assert answer.status_code == 200
    red, green, blue = engine.submits[0][0].images[0].image.tiles[0][:3]
    assert red > 250
    assert max(green, blue) < 5


async def test_choices_share_their_pictures(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    await ask(http, user(shown(url_of(png()))), n=3)
    assert [len(each.images) for each in engine.submits[0]] == [1, 1, 1]
    assert len({id(each.images[0].image) for each in engine.submits[0]}) == 1


async def test_equal_pictures_have_one_key(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    await ask(http, user(*(shown(url_of(png(8, 8, color))) for color in (5, 5, 6))))
    first, second, third = (image.key for image, _ in engine.submits[0][0].images)
    assert first == second != third


@pytest.mark.parametrize("role", ["system", "developer", "assistant", "tool"])
async def test_only_users_show_pictures(http: httpx.AsyncClient, role: str) -> None:
    message = {**user(text("a"), shown(url_of(png()))), "role": role}
    if role == "tool":
        message["tool_call_id"] = "c"
    error = (await ask(http, message)).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "messages[0].content[1]")


@pytest.mark.parametrize(
    ("part", "code", "param"),
    [
        ({"type": "image_url"}, "missing_required_parameter", "image_url"),
        ({"type": "image_url", "image_url": "x"}, "invalid_type", "image_url"),
        (shown(""), "invalid_value", "image_url.url"),
        (shown("http://a/", detail="best"), "invalid_value", "image_url.detail"),
        (shown("http://a/", foo="x"), "unknown_parameter", "image_url.foo"),
        ({**shown("http://a/"), "text": "x"}, "invalid_value", "text"),
        ({**text("x"), "image_url": {"url": "http://a/"}}, "invalid_value", "image_url"),
        ({"type": "input_audio", "input_audio": {}}, "unsupported_parameter", "input_audio"),
    ],
)
async def test_malformed_parts(
    http: httpx.AsyncClient, part: dict[str, Any], code: str, param: str
) -> None:
    error = (await ask(http, user(part))).json()["error"]
    assert (error["code"], error["param"]) == (code, f"messages[0].content[0].{param}")


@pytest.mark.parametrize("image_config", [ImageConfig(limit_images_per_prompt=2)])
async def test_limit(http: httpx.AsyncClient, engine: FakeEngine, fetcher: PlayedFetcher) -> None:
    picture = shown("http://a/wide.png")
    assert (await ask(http, user(picture, picture))).status_code == 200
    asked = len(fetcher.asked)
    error = (await ask(http, user(picture), user(picture, picture))).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "messages")
    assert "3 images" in error["message"]
    assert "at most 2" in error["message"]
    assert "--limit-images-per-prompt" in error["message"]
    assert len(fetcher.asked) == asked


async def test_a_model_without_eyes(
    http: httpx.AsyncClient, engine: FakeEngine, fetcher: PlayedFetcher
) -> None:
    assert engine.ready
    engine.ready = msgspec.structs.replace(engine.ready, takes_images=False)
    error = (await ask(http, user(text("a"), shown("http://a/wide.png")))).json()["error"]
    assert (error["code"], error["param"]) == (
        "invalid_value",
        "messages[0].content[1].image_url.url",
    )
    assert "reads text only" in error["message"]
    assert not fetcher.asked


async def test_nothing_is_fetched_while_the_model_loads(
    http: httpx.AsyncClient, engine: FakeEngine, fetcher: PlayedFetcher
) -> None:
    engine.ready = None
    assert (await ask(http, user(shown("http://a/wide.png")))).status_code == 503
    assert not fetcher.asked


async def test_one_bad_picture_is_named_and_the_others_are_given_up(
    http: httpx.AsyncClient, engine: FakeEngine, fetcher: PlayedFetcher
) -> None:
    parts = [shown("http://a/wide.png"), shown("http://a/hang"), shown("http://a/none")]
    error = (await ask(http, user(text("x")), user(*parts))).json()["error"]
    assert error == {
        "message": "`messages[1].content[2].image_url.url` could not be downloaded.",
        "type": "invalid_request_error",
        "param": "messages[1].content[2].image_url.url",
        "code": "failed_to_download_image",
    }
    assert fetcher.given_up == 1
    assert not engine.submits


async def test_too_long_a_prompt_counts_its_patches(http: httpx.AsyncClient) -> None:
    error = (await ask(http, user(*[shown(url_of(png(16, 16)))] * 8))).json()["error"]
    assert error["code"] == "context_length_exceeded"


async def test_metrics(http: httpx.AsyncClient) -> None:
    await ask(http, user(shown(url_of(png())), shown("http://a/wide.png")))
    page = (await http.get("/metrics")).text
    assert "caravan_images_total 2.0" in page
    assert "caravan_image_seconds_count 1.0" in page


async def test_a_client_that_leaves_ends_the_download(
    app: FastAPI, url: str, fetcher: PlayedFetcher, engine: FakeEngine
) -> None:
    body = {"model": MODEL, "messages": [user(shown("http://a/hang"))]}
    async with httpx.AsyncClient(base_url=url, timeout=0.5) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/chat/completions", json=body)
    async with asyncio.timeout(10):
        while not fetcher.given_up:
            await asyncio.sleep(0.01)
    assert not engine.submits


async def test_other_requests_go_on_while_pictures_are_awaited(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    waiting = asyncio.create_task(ask(http, user(shown("http://a/hang"))))
    engine.script = lambda index, sampling: say("ok")
    answer = await ask(http, user(text("Hi")))
    assert answer.json()["choices"][0]["message"]["content"] == "ok"
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_picture_that_is_there_does_not_wait_for_downloads(
    images: ImageLoader, fetcher: PlayedFetcher
) -> None:
    hanging = [
        asyncio.create_task(images.load([source("http://a/hang")] * 10))
        for _ in range(api_images.MAX_DOWNLOADS // 10 + 1)
    ]
    async with asyncio.timeout(10):
        while len(fetcher.asked) < api_images.MAX_DOWNLOADS:
            await asyncio.sleep(0.01)
        (image,) = await images.load([source(url_of(png()))])
    assert image.grid.num_tiles == 1
    assert len(fetcher.asked) == api_images.MAX_DOWNLOADS
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


def source(url: str) -> ImageSource:
    return ImageSource(url, low_detail=False, param="p")


async def test_requests_with_pictures_wait_for_a_place_but_not_for_ever(
    images: ImageLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = [
        asyncio.create_task(images.load([source("http://a/hang")]))
        for _ in range(api_images.MAX_REQUESTS)
    ]
    await asyncio.sleep(0)
    monkeypatch.setattr(api_images, "MAX_WAIT_S", 0.05)
    with pytest.raises(Overloaded, match="Try again in"):
        await images.load([source(url_of(png()))])
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    (image,) = await images.load([source(url_of(png()))])
    assert image.grid.num_tiles == 1


@pytest.mark.parametrize("image_config", [ImageConfig(max_image_pixels=100)])
async def test_the_loader_says_which_field(images: ImageLoader) -> None:
    with pytest.raises(ImageTooLarge) as caught:
        await images.load([source(url_of(png(11, 10)))])
    assert caught.value.param == "p"
    assert caught.value.message == "`p` has 11 x 10 pixels, 110; the limit is 100."
