"""JSON of texts, numbers, constants and bare words."""

from __future__ import annotations

import json

_CONSTANTS = {
    "true": ("True", "true"),
    "false": ("False", "false"),
    "null": ("None", "null", "NaN", "nan", "Infinity", "-Infinity", "inf", "-inf", "+inf"),
}
_JSON_OF_WORD = {word: constant for constant, words in _CONSTANTS.items() for word in words}


def json_text(text: str) -> str:
    r"""The inside of a JSON string; non-ASCII characters stay, but for lone surrogates.

    >>> print(json_text('"é"\n\ud800'))
    \"é\"\n\ud800
    """
    inside = json.dumps(text, ensure_ascii=False)[1:-1]
    return inside.encode("utf-8", "backslashreplace").decode("utf-8")


def json_string(text: str) -> str:
    """A JSON string."""
    return f'"{json_text(text)}"'


def json_number(word: str) -> str | None:
    """A decimal number of Python or JSON as JSON writes it; None: the word is none.

    >>> [json_number(word) for word in ("+5", "-.5", "5.", "1_000e5", "007", "1-2")]
    ['5', '-0.5', '5.0', '1000e5', None, None]
    """
    sign = "-" if word.startswith("-") else ""
    mantissa, e, exponent = word.removeprefix(sign or "+").partition("e" if "e" in word else "E")
    whole, point, fraction = mantissa.partition(".")
    exponent_sign = exponent[:1] if exponent[:1] in ("+", "-") else ""
    exponent = exponent.removeprefix(exponent_sign)
    parts = [part for part in (whole, fraction, exponent) if part]
    if not (whole or fraction) or (e and not exponent) or not all(map(_are_digits, parts)):
        return None
    whole = whole.replace("_", "") or "0"
    if len(whole) > 1 and whole.startswith("0"):
        return None
    number = f"{sign}{whole}{point}{fraction or '0'}" if point else sign + whole
    return (number + e + exponent_sign + exponent).replace("_", "")


def _are_digits(text: str) -> bool:
    """Whether they are digits with single underscores between them."""
    groups = text.split("_")
    return text.isascii() and all(group.isdigit() for group in groups)


def json_word(word: str) -> str:
    """The JSON of a number, a constant or a bare word."""
    return _JSON_OF_WORD.get(word) or json_number(word) or json_string(word)


def json_key(word: str) -> str:
    """The same as an object's key."""
    value = json_word(word)
    return value if value.startswith('"') else f'"{value}"'
