"""Our lists of OpenAI's names against the types of the installed SDK."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_type_hints

import pytest
from openai.types import chat
from openai.types import completion_create_params as completion
from openai.types.chat import chat_completion_content_part_image_param
from openai.types.chat import chat_completion_message_function_tool_call_param as tool_call
from openai.types.chat import completion_create_params as chat_completion

from caravan.api import schema

MESSAGES = (
    chat.ChatCompletionSystemMessageParam,
    chat.ChatCompletionDeveloperMessageParam,
    chat.ChatCompletionUserMessageParam,
    chat.ChatCompletionAssistantMessageParam,
    chat.ChatCompletionToolMessageParam,
)
PARTS = (
    chat.ChatCompletionContentPartTextParam,
    chat.ChatCompletionContentPartImageParam,
    chat.ChatCompletionContentPartInputAudioParam,
    chat.ChatCompletionContentPartRefusalParam,
    chat.chat_completion_content_part_param.File,
)
TOOL_CALLS = (
    chat.ChatCompletionMessageFunctionToolCallParam,
    chat.ChatCompletionMessageCustomToolCallParam,
)

# What we obey beside OpenAI's fields.
EXTENSIONS = {
    "ignore_eos", "min_p", "min_tokens", "repetition_penalty", "stop_token_ids", "top_k"
}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "types", "extensions"),
    [
        (schema.ChatBody, [chat_completion.CompletionCreateParamsStreaming], EXTENSIONS),
        (schema.CompletionBody, [completion.CompletionCreateParamsStreaming], EXTENSIONS),
        (schema.StreamOptions, [chat.ChatCompletionStreamOptionsParam], set()),
        (schema.MessageItem, MESSAGES, set()),
        (schema.ContentPart, PARTS, set()),
        (schema.ImageUrl, [chat_completion_content_part_image_param.ImageURL], set()),
        (schema.ToolCallItem, TOOL_CALLS, set()),
        (schema.FunctionCall, [tool_call.Function], set()),
    ],
)
def test_every_name_of_the_sdk_is_obeyed_or_refused_as_known(
    body: type[schema.Body], types: Iterable[type], extensions: set[str]
) -> None:
    theirs = {name for kind in types for name in get_type_hints(kind)}
    fields = set(body.model_fields)
    assert fields - theirs == extensions
    assert body.unsupported == theirs - fields
