"""What is wrong with a grammar, in our words.

llguidance's own messages quote the grammar, so none of them is passed on: they are recognised by
their fixed parts. What is not recognised is an error all the same, only a vague one.
"""

from __future__ import annotations

import re

TOO_COMPLEX = "is too complex; make it smaller, or split it"

_CANNOT_COMPILE = "cannot be compiled"
_UNSATISFIABLE = "cannot be satisfied: no output could be valid"

# The first part that occurs decides. A message may quote the user's text behind its own words.
_REASONS: dict[str, tuple[str, ...]] = {
    _UNSATISFIABLE: (
        "Unsatisfiable schema",
        "NoExtensionBias",
        "Regex is empty",
        "required property",
    ),
    "uses `oneOf` with options that may overlap; use `anyOf`": (
        "oneOf constraints are not supported",
    ),
    "has a `$ref` with other keywords beside it that leads back to itself": (
        "circular references with sibling keys",
    ),
    "uses `minProperties` or `maxProperties` beside optional properties": (
        "min/maxProperties only supported",
    ),
    "uses `patternProperties` whose patterns may match the same name": ("are not disjoint",),
    "uses `patternProperties` whose patterns are too complex to compare": (
        "can't determine if patternProperty",
    ),
    "has a `multipleOf` with too many digits": ("has too many digits",),
    "does not allow the token that was drawn": ("doesn't satisfy the grammar", "parser stopped"),
    TOO_COMPLEX: (
        "Unable to determine if regex is empty",
        "schema too large",
        "stack level exceeded",
        "recursion limit exceeded",
        "too deeply nested",
        "grammar.symbols.len()",
        "too big",
        "too large",
        "fuel exhausted",
        "Too many items",
        "too many expressions",
        "too many states",
        "precomputation failed",
        "TooComplex",
        "items; max is",
    ),
}

# Of the regular expression parser, behind "error: " on a line of its own.
_REGEX_REASONS = {
    "look-around, including look-ahead and look-behind, is not supported": (
        "look-around is not supported"
    ),
    "backreferences are not supported": "backreferences are not supported",
    "unclosed character class": "a character class is not closed",
    "unclosed group": "a group is not closed",
    "unopened group": "a group is closed that was not opened",
    "repetition operator missing expression": "there is nothing to repeat",
    "invalid repetition count range, the start must be <= the end": (
        "a repetition's bounds are in the wrong order"
    ),
    "repetition quantifier expects a valid decimal": "a repetition's bounds are not numbers",
    "unclosed counted repetition": "a repetition's bounds are not closed",
    "unrecognized escape sequence": "an escape is not known",
    "incomplete escape sequence, reached end of pattern prematurely": "an escape is incomplete",
    "invalid character class range, the start must be <= the end": (
        "a range's ends are in the wrong order"
    ),
    "unrecognized flag": "a flag is not known",
    "Unicode property not found": "a Unicode property is not known",
    "pattern can match invalid UTF-8": "it matches what is not UTF-8",
    "exceed the maximum number of nested parentheses/brackets": "it is nested too deeply",
}

_REGEX_MESSAGES = ("regex parse error", "lookarounds not supported", "in regex /")

# Of the grammar parser, behind the position.
_LARK_REASONS = (
    ("unknown name", "a name has no definition"),
    ("no start rule", "there is no rule `start`"),
    ("duplicate", "a name is defined twice"),
    ("circular reference in token", "a terminal refers to itself; only rules may"),
    ("Unknown common regex", "`common` has no such terminal"),
    ("lexer error", "a character is not expected"),
    ("Expected", "the syntax is wrong"),
    ("expecting rule", "the syntax is wrong"),
    ("not supported", "a feature of Lark is used that is not supported"),
    ("range", "a range's bounds are wrong"),
    ("Empty grammar", "it is empty"),
)

_ONLY_REGEX = "at 1(8): "  # where it stands in the grammar that is nothing but a regular expression
_POSITION = re.compile(r"(?:at )?(\d+)\((\d+)\): ")
_CARET = re.compile(r"^    ( *)\^", re.MULTILINE)


class GrammarError(ValueError):
    """What the client asked for cannot be obeyed.

    `reason` continues the name of what is wrong: "uses the keyword `not`, which ...". `path` says
    where in a schema, as a JSON pointer; it holds names of the client's and so is kept apart.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


def explain(message: str) -> GrammarError:
    """The error behind a message of llguidance's."""
    position = _POSITION.match(message)
    if any(part in message for part in _REGEX_MESSAGES):
        return GrammarError(_regex_reason(message, position))
    for reason, parts in _REASONS.items():
        if any(part in message for part in parts):
            return GrammarError(reason)
    said = message.splitlines()[0][position.end() if position else 0 :] if message else ""
    for part, reason in _LARK_REASONS:
        if said.startswith(part) or (position and part in said):
            return GrammarError(f"is not a valid grammar{_place(position)}: {reason}")
    if position:
        return GrammarError(f"is not a valid grammar{_place(position)}")
    return GrammarError(_CANNOT_COMPILE)


def _place(position: re.Match[str] | None) -> str:
    return f", line {position[1]}, column {position[2]}" if position else ""


def _regex_reason(message: str, position: re.Match[str] | None) -> str:
    known = [reason for said, reason in _REGEX_REASONS.items() if f"\nerror: {said}" in message]
    if "lookarounds not supported" in message:
        known = ["an anchor or a word boundary stands where it is not supported"]
    caret = _CARET.search(message)
    place = f" at character {len(caret[1]) + 1}" if caret and known else ""
    detail = f"{place}: {known[0]}" if known else ""
    if position and position[0] != _ONLY_REGEX:
        return f"has a regular expression that cannot be obeyed{_place(position)}{detail}"
    return f"is not a regular expression that can be obeyed{detail}"
