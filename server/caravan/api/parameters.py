"""Names of request fields that OpenAI knows and Caravan does not obey.

A field in these sets is refused as `unsupported_parameter`, any other that `schema` lacks as
`unknown_parameter`. Names from OpenAI's specification 2.3.0; a test compares them with the types of
the installed SDK.
"""

from __future__ import annotations

CHAT = frozenset(
    {
        "audio",
        "function_call",
        "functions",
        "metadata",
        "modalities",
        "moderation",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "service_tier",
        "store",
        "tool_choice",
        "tools",
        "user",
        "verbosity",
        "web_search_options",
    }
)

COMPLETION = frozenset({"best_of", "echo", "suffix", "user"})

MESSAGE = frozenset({"audio", "function_call", "name", "refusal"})

CONTENT_PART = frozenset({"file", "input_audio", "prompt_cache_breakpoint", "refusal"})

TOOL_CALL = frozenset({"custom"})
