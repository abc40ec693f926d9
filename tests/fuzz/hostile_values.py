"""Values, schemas, patterns and names that a server may stumble over."""

from __future__ import annotations

from typing import Any

from fuzz.played import MODEL

Json = Any

LONG = 40_000  # characters: longer than what is read on the event loop
DEEP = "@deep@"  # stands for thousands of nested lists, which `json` could not write
MUTUAL = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}

SCHEMAS: list[Json] = [
    {"$ref": "#"},
    {"$ref": "#/$defs/none"},
    {"$ref": "https://example.org/schema"},
    {"$ref": "#/" + "x" * 5000},
    MUTUAL,
    {"type": "string", "pattern": "^(a+)+$"},
    {"type": "string", "pattern": "(?=a)b"},
    {"type": "string", "pattern": "("},
    {"type": "string", "pattern": "(a{1000}){1000}"},
    {"type": "string", "minLength": 10**9},
    {"type": "string", "maxLength": -1},
    {"type": "nothing"},
    {"type": ["string", "null", 5]},
    {"not": {}},
    {"enum": []},
    {"enum": [str(i) for i in range(9000)]},
    {"const": {"a": [None] * 50}},
    {"minimum": 5, "maximum": 1},
    {"multipleOf": 1e-300},
    {"type": "object", "properties": {"x" * 3000: {"type": "nothing"}}},
    {"type": "object", "properties": {"\ud800": {}}},
    {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(1500)}},
    {"type": "object", "required": ["a"], "additionalProperties": False},
    {"allOf": [{"type": "string"}, {"type": "integer"}]},
    {"anyOf": [{"anyOf": [{"pattern": "a*" * 40}] * 10}] * 10},
    {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    {"properties": {"a": {"properties": {"b/~\n": {"not": True}}}}},
    {"patternProperties": {"(": {}, "a": {}, "b*": {}}},
    {"format": "x" * 5000},
    {"unknown" * 500: 1},
    {"$defs": {"x" * 4000: {"type": 5}}, "$ref": "#/$defs/" + "x" * 4000},
]
REGEXES = [
    "(",
    "a{999999}",
    "(a|a)*b",
    "(?<=a)",
    "\\1",
    "[z-a]",
    "",
    "\x00",
    "(" * 3000,
    "\ud83d",
    "é*",
]
LARKS = [
    "",
    "start:",
    "start: start",
    'start: "a" | b',
    "start: /(/",
    "start: A\nA: A",
    '%import common.WORD\nstart: WORD "\ud800"',
    "start: (((" * 500,
    "x" * 5000 + ": /a/",
]
VALUES: list[Json] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**30, int("9" * 4299),
    -int("9" * 4299), 0.5, 1.0, 1e308, -0.0, 5e-324,
    "", "a", "\x00", "\n\r\u2028", "é", "🙂", "\ud800", "\udfff\ud800", "x" * LONG, "🙂" * LONG,
    "<|eot|>", "auto", "none", "function", "tool", "text", "json_schema", "1", MODEL, DEEP,
    "data:image/png;base64,AAAA", "data:image/png;base64,", "data:,", "http://127.0.0.1/",
    "file:///etc/passwd", "//", "http://[", "x:" * 900,
    [], [[]], [None], [0] * 3000, [""], ["a"] * 200, [[1], "a"], [{}],
    {}, {"": 0}, {"a": None}, {"type": "text"}, {"x" * 3000: {"y" * 3000: 1}}, {"\ud800": 1},
    {"日本": 1}, {str(i): i for i in range(1100)},
]  # fmt: skip
NAMES = [
    "model", "messages", "prompt", "n", "best_of", "stream", "stream_options", "stop", "logprobs",
    "echo", "top_logprobs", "max_tokens", "max_completion_tokens", "min_tokens", "tools",
    "tool_choice", "suffix", "response_format", "structured_outputs", "logit_bias", "seed",
    "content", "role", "name", "tool_calls", "tool_call_id", "refusal", "type", "text", "image_url",
    "function", "custom", "schema", "strict", "format", "prompt_logprobs", "truncate_prompt_tokens",
    "ignore_eos", "continue_final_message", "service_tier", "", "__class__", "日本", "x" * 5000,
    "\ud800", "a.b[0]", "`", "\n",
]  # fmt: skip
