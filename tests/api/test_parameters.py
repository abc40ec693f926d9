"""Our lists of OpenAI's names against the types of the installed SDK."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_type_hints

import pytest
from openai.types import chat
from openai.types import completion_create_params as completion
from openai.types.chat import chat_completion_content_part_image_param
from openai.types.chat import chat_completion_custom_tool_param as custom_tool
from openai.types.chat import chat_completion_message_custom_tool_call_param as custom_call
from openai.types.chat import chat_completion_message_function_tool_call_param as tool_call
from openai.types.chat import completion_create_params as chat_completion
from openai.types.shared_params import (
    FunctionDefinition,
    ResponseFormatJSONSchema,
    response_format_json_schema,
)

from caravan.api.schema import conversation, output, tools
from caravan.api.schema.base import Body
from caravan.api.schema.chat import ChatBody
from caravan.api.schema.completion import CompletionBody
from caravan.api.schema.sampling import StreamOptions

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
TOOLS = (chat.ChatCompletionFunctionToolParam, chat.ChatCompletionCustomToolParam)
TOOL_CALLS = (
    chat.ChatCompletionMessageFunctionToolCallParam,
    chat.ChatCompletionMessageCustomToolCallParam,
)

# What we obey beside OpenAI's fields.
EXTENSIONS = {
    "cache_salt", "ignore_eos", "include_stop_str_in_output", "min_p", "min_tokens", "priority",
    "prompt_logprobs", "repetition_penalty", "return_token_ids", "skip_special_tokens",
    "stop_token_ids", "structured_outputs", "top_k", "truncate_prompt_tokens",
}  # fmt: skip
CHAT_EXTENSIONS = EXTENSIONS | {"add_generation_prompt", "continue_final_message"}


@pytest.mark.parametrize(
    ("body", "types", "extensions"),
    [
        (ChatBody, [chat_completion.CompletionCreateParamsStreaming], CHAT_EXTENSIONS),
        (CompletionBody, [completion.CompletionCreateParamsStreaming], EXTENSIONS),
        (
            StreamOptions,
            [chat.ChatCompletionStreamOptionsParam],
            {"continuous_usage_stats"},
        ),
        (conversation.MessageItem, MESSAGES, set()),
        (conversation.ContentPart, PARTS, set()),
        (conversation.ImageUrl, [chat_completion_content_part_image_param.ImageURL], set()),
        (conversation.ToolCallItem, TOOL_CALLS, set()),
        (conversation.FunctionCall, [tool_call.Function], set()),
        (conversation.CustomCall, [custom_call.Custom], set()),
        (tools.ToolItem, TOOLS, set()),
        (tools.FunctionItem, [FunctionDefinition], set()),
        (tools.CustomItem, [custom_tool.Custom], set()),
        (tools.GrammarItem, [custom_tool.CustomFormatGrammarGrammar], set()),
        (tools.AllowedTools, [chat.ChatCompletionAllowedToolsParam], set()),
        (output.ResponseFormat, [ResponseFormatJSONSchema], set()),
        (output.JsonSchemaFormat, [response_format_json_schema.JSONSchema], set()),
    ],
)
def test_every_name_of_the_sdk_is_obeyed_or_refused_as_known(
    body: type[Body], types: Iterable[type], extensions: set[str]
) -> None:
    theirs = {name for kind in types for name in get_type_hints(kind)}
    assert body.names() - theirs == extensions
    assert theirs - body.names() <= set(body.refused)


def test_what_is_refused_is_not_obeyed() -> None:
    for body in (ChatBody, CompletionBody, conversation.MessageItem, conversation.ContentPart):
        assert not body.names() & set(body.refused)
