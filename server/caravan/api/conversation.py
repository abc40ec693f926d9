"""A conversation as JSON to a prompt: its pictures are loaded, then it is rendered.

/v1/chat/completions answers it, /tokenize shows its tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from starlette.requests import Request

from caravan.api.body import off_loop
from caravan.api.disconnect import unless_disconnected
from caravan.api.images import ImageSource
from caravan.api.schema import MessageItem
from caravan.api.service import Service, service_of
from caravan.errors import InvalidValue
from caravan.text.prompt import Message, Picture, Prompt, ToolCall, render_chat
from caravan.tiles import TiledImage


async def load_prompt(
    request: Request, messages: Sequence[MessageItem]
) -> tuple[Prompt, list[TiledImage]]:
    """The prompt and the pictures that it shows. The request's body must have been read.

    Raises InvalidValue or InvalidImage, ClientDisconnect, StillLoading, Overloaded.
    """
    service = service_of(request)
    sources = list(_sources(messages))
    images: list[TiledImage] = []
    if sources:
        _check_welcome(service, sources)
        began_s = time.perf_counter()
        images = await unless_disconnected(request.receive, service.images.load(sources))
        service.metrics.images.inc(len(images))
        service.metrics.image_s.observe(time.perf_counter() - began_s)
    size = sum(len(part.text or "") for item in messages for part in item.content)
    prompt = await off_loop(size, lambda: _rendered(service, messages, images))
    return prompt, images


def _sources(messages: Sequence[MessageItem]) -> Iterator[ImageSource]:
    for i, item in enumerate(messages):
        for j, part in enumerate(item.content):
            if part.image_url is not None:
                yield ImageSource(
                    url=part.image_url.url,
                    low_detail=part.image_url.detail == "low",
                    param=f"messages[{i}].content[{j}].image_url.url",
                )


def _check_welcome(service: Service, sources: Sequence[ImageSource]) -> None:
    """Before anything is fetched. Raises InvalidValue, StillLoading."""
    if not service.loaded().takes_images:
        param = sources[0].param
        raise InvalidValue(
            f"`{param}` is an image; the model `{service.model_name}` reads text only.",
            param=param,
        )
    limit = service.images.config.limit_images_per_prompt
    if len(sources) > limit:
        raise InvalidValue(
            f"`messages` has {len(sources)} images; this server reads at most {limit} in one "
            "request (--limit-images-per-prompt).",
            param="messages",
        )


def _rendered(
    service: Service, messages: Sequence[MessageItem], images: Sequence[TiledImage]
) -> Prompt:
    tile_tokens = service.images.layout.tile_tokens
    pictures = iter([Picture(image.grid, tile_tokens) for image in images])
    return render_chat(service.tokenizer, [_message(item, pictures) for item in messages])


def _message(item: MessageItem, pictures: Iterator[Picture]) -> Message:
    """A message as the renderer takes it. Llama 4 has no role `developer` and no call ids."""
    return Message(
        role="system" if item.role == "developer" else item.role,
        parts=tuple(next(pictures) if part.text is None else part.text for part in item.content),
        tool_calls=tuple(
            ToolCall(call.function.name, call.function.arguments) for call in item.tool_calls
        ),
    )
