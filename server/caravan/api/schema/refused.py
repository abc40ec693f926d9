"""Fields that clients may know from OpenAI or from other servers, and Caravan does not obey.

Each has the rest of a sentence that begins with its name: what to do instead, where there is
something. A field that is neither here nor in the schema is an unknown one. Names from OpenAI's
specification 2.3.0, vLLM 0.33 and SGLang 0.5.23; a test compares OpenAI's with the types of the
installed SDK.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def _each(names: Iterable[str], message: str = "is not supported by this server") -> dict[str, str]:
    return dict.fromkeys(names, message)


# Of other servers, for chat and completions alike.
_ELSEWHERE: Mapping[str, str] = {
    **_each(
        {
            "allowed_token_ids",
            "bad_words",
            "chat_template",
            "documents",
            "kv_transfer_params",
            "logits_processors",
            "lora_path",
            "media_io_kwargs",
            "mm_processor_kwargs",
            "repetition_detection",
            "return_tokens_as_token_ids",
            "spaces_between_special_tokens",
            "stop_regex",
            "use_beam_search",
        }
    ),
    **_each(
        {"chat_template_kwargs"},
        "is not supported: Llama 4's chat format has no options",
    ),
    "guided_json": "is not a field of this server; send `structured_outputs.json`",
    "guided_regex": "is not a field of this server; send `structured_outputs.regex`",
    "guided_choice": "is not a field of this server; send `structured_outputs.choice`",
    "guided_grammar": "is not a field of this server; send `structured_outputs.grammar`",
    "request_id": "is not a field of this server; send the header `x-request-id`",
}

CHAT: Mapping[str, str] = {
    **_ELSEWHERE,
    **_each({"audio"}, "is not supported: this server answers in text only"),
    **_each({"metadata"}, "is not supported: this server stores no completions"),
    **_each({"moderation", "prompt_cache_options", "web_search_options"}),
    "echo": "belongs to /v1/completions; see `continue_final_message`, too",
    "function_call": "is not supported; send `tool_choice`",
    "functions": "is not supported; send `tools`",
    "prediction": "is not supported: this server does not speculate, so it would be of no use",
}

COMPLETION: Mapping[str, str] = {
    **_ELSEWHERE,
    "response_format": "belongs to /v1/chat/completions; send `structured_outputs`",
    "suffix": "is not supported: Llama 4 is not trained to fill in the middle of a text",
}

MESSAGE: Mapping[str, str] = {
    "audio": "is not supported: the model reads text and images",
    "function_call": "is not supported; send `tool_calls`",
    "name": "is not supported: Llama 4's chat format has no names of speakers",
}

CONTENT_PART: Mapping[str, str] = {
    **_each({"file", "input_audio"}, "is not supported: the model reads text and images"),
    "prompt_cache_breakpoint": "is not supported by this server",
}
