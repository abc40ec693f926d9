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
from caravan.api.schema.conversation import Conversation, MessageItem, ToolCallItem
from caravan.api.service import Service, service_of
from caravan.errors import InvalidValue
from caravan.text.prompt import Message, Picture, Prompt, ToolCall, render_chat
from caravan.text.tool_prompt import Tool
from caravan.tiles import TiledImage


async def load_prompt(
    request: Request,
    conversation: Conversation,
    tools: Sequence[Tool],
    *,
    parallel_tool_calls: bool = True,
) -> tuple[Prompt, list[TiledImage]]:
    """The prompt and the pictures that it shows. The request's body must have been read.

    Raises InvalidValue or InvalidImage, ClientDisconnect, StillLoading, Overloaded.
    """
    service = service_of(request)
    messages = conversation.messages
    _check_markers(service, messages, tools)
    sources = list(_sources(messages))
    images: list[TiledImage] = []
    if sources:
        _check_welcome(service, sources)
        began_s = time.perf_counter()
        images = await unless_disconnected(request.receive, service.images.load(sources))
        service.metrics.images.inc(len(images))
        service.metrics.image_s.observe(time.perf_counter() - began_s)
    size = sum(len(part.words or "") for item in messages for part in item.content)

    def rendered() -> Prompt:
        tile_tokens = service.images.layout.tile_tokens
        pictures = iter([Picture(image.grid, tile_tokens) for image in images])
        return render_chat(
            service.tokenizer,
            [_message(item, pictures) for item in _in_order(messages)],
            tools=tools,
            parallel_tool_calls=parallel_tool_calls,
            add_generation_prompt=conversation.generation_prompt,
            continue_final_message=conversation.continue_final_message,
        )

    return await off_loop(size, rendered), images


def _check_markers(
    service: Service, messages: Sequence[MessageItem], tools: Sequence[Tool]
) -> None:
    """Custom tools need special tokens that a tokenizer may lack. Raises InvalidValue."""
    called = (call.type for item in messages for call in item.tool_calls)
    custom = "custom" in called or any(tool.kind == "custom" for tool in tools)
    if custom and not service.marker_ids:
        raise InvalidValue(
            "`tools` has a custom tool, or `messages` a call of one; the tokenizer of this model "
            "has no tokens for them. Use tools of type `function`.",
            param="tools",
        )


def _in_order(messages: Sequence[MessageItem]) -> Iterator[MessageItem]:
    """The messages, with the results of several calls in the order of the calls.

    Llama 4's chat format has no ids: the first result is that of the first call.
    """
    calls: list[str] = []
    results: list[MessageItem] = []

    def place(item: MessageItem) -> int:
        return calls.index(item.tool_call_id or "")

    for item in messages:
        if item.role == "tool":
            results.append(item)
            continue
        yield from sorted(results, key=place)
        results = []
        calls = [call.id for call in item.tool_calls]
        yield item
    yield from sorted(results, key=place)


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


def _message(item: MessageItem, pictures: Iterator[Picture]) -> Message:
    """A message as the renderer takes it. Llama 4 has no role `developer` and no call ids."""
    return Message(
        role="system" if item.role == "developer" else item.role,
        parts=(
            *(next(pictures) if part.words is None else part.words for part in item.content),
            *([] if item.refusal is None else [item.refusal]),
        ),
        tool_calls=tuple(map(_tool_call, item.tool_calls)),
    )


def _tool_call(item: ToolCallItem) -> ToolCall:
    if item.function is not None:
        return ToolCall(item.function.name, item.function.arguments)
    assert item.custom is not None, item
    return ToolCall(item.custom.name, item.custom.input, "custom")
