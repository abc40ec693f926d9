"""Grammars of whole outputs, as strings that llguidance reads.

All functions raise GrammarError."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llguidance import regex_to_lark

from caravan.grammars.errors import GrammarError
from caravan.grammars.larks import guidance_lark
from caravan.grammars.limits import MAX_CHOICES, MAX_GRAMMAR_BYTES, Budget
from caravan.grammars.regexes import check_regex
from caravan.grammars.schemas import guidance_schema


def json_schema(schema: dict[str, Any] | bool) -> str:
    """JSON that is valid under the schema.

    White space is bounded: between two tokens of the JSON nothing, a space, or a line break with up
    to 40 spaces or tabs. There is none in front of the JSON or behind it.
    """
    prepared = guidance_schema(schema, Budget())
    return finished([{"json_schema": prepared}])


def json_object() -> str:
    """Any JSON object."""
    return json_schema({"type": "object"})


def regex(pattern: str) -> str:
    """Text that matches as a whole."""
    check_regex(pattern, Budget())
    return finished([{"lark_grammar": f"start: /{lark_regex(pattern)}/"}])


def choice(options: Sequence[str]) -> str:
    """One of the texts."""
    if not options:
        raise GrammarError("has no options")
    if len(options) > MAX_CHOICES:
        raise GrammarError(f"has more than {MAX_CHOICES} options")
    choices = " | ".join(map(literal, options))
    return finished([{"lark_grammar": f"start: CHOICE\nCHOICE: {choices}"}])


def lark(grammar: str) -> str:
    """Text that the rule `start` of a Lark grammar gives."""
    prepared = guidance_lark(grammar, Budget())
    return finished([{"lark_grammar": prepared}])


def literal(text: str) -> str:
    """A text as a string in a Lark grammar."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def lark_regex(pattern: str) -> str:
    """What stands between the slashes of a regular expression in a Lark grammar."""
    return regex_to_lark(sendable(pattern), "")


def sendable(text: str) -> str:
    """The text, if it is one that UTF-8 can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise GrammarError("has half of a surrogate pair") from None
    return text


def finished(grammars: Sequence[Mapping[str, Any]]) -> str:
    """The first grammar, which may refer to the others, if they are not too long together."""
    text = sendable(json.dumps({"grammars": grammars}, ensure_ascii=False))
    if len(text.encode()) > MAX_GRAMMAR_BYTES:
        raise GrammarError(f"has more than {MAX_GRAMMAR_BYTES} bytes")
    return text
