"""How large a grammar may be. The same numbers hold where it is checked and where it is followed.

They bound the time of what llguidance does with hostile input, which its own limits do not bound
everywhere: a schema of a few kilobytes could take minutes or, nested deeply, overflow the stack.
"""

from __future__ import annotations

from typing import Literal

from llguidance import LLParserLimits

from caravan.grammars.errors import GrammarError

MAX_GRAMMAR_BYTES = 256 << 10

MAX_SCHEMA_DEPTH = 64  # levels of JSON
MAX_REFERENCE_DEPTH = 128  # levels, references followed: llguidance's stack grows with them
MAX_PROPERTIES = 1000  # of one object
MAX_OPTIONS = 1000  # of one `anyOf`
MAX_NAME_PATTERNS = 20  # of one `patternProperties`; llguidance compares each pair
MAX_COUNT = 1_000_000  # `minLength`, `maxItems` and the like
MAX_NUMBER = 2**53  # above, not every integer is a floating-point number
MIN_NUMBER = 1e-20  # of a bound or a constant that is not 0
MAX_COMBINED_DEPTH = 48
MAX_COMBINED_PATTERNS = 4  # of one string

MAX_REGEX_CHARACTERS = 8 << 10
MAX_REGEX_ITEMS = 16_384  # characters and classes, counted repetitions written out

MAX_CHOICES = 4096

Resource = Literal[
    "subschemas and names",  # those inside of constants count too
    "constants",
    "characters in its patterns",
    "repetitions",  # `?`, `*` and `+`: each that may match nothing costs all behind it
    "different steps of `multipleOf`",  # their sum, without decimal points
    # Where several schemas hold for one value: schemas that are copied to combine them.
    "combinations of schemas",
    "rules, terminals and groups",  # llguidance's stack grows with them
    "symbols",  # names, strings and regular expressions of a Lark grammar
]

_LIMITS: dict[Resource, int] = {
    "subschemas and names": 8000,
    "constants": 8192,
    "characters in its patterns": 16 << 10,
    "repetitions": 1500,
    "different steps of `multipleOf`": 20_000,
    "combinations of schemas": 10_000,
    "rules, terminals and groups": 1000,
    "symbols": 2000,
}


class Budget:
    """What one grammar may use, in all its schemas and regular expressions together."""

    def __init__(self) -> None:
        self._left = dict(_LIMITS)

    def spend(self, what: Resource, amount: int = 1) -> None:
        """Raises GrammarError if that is too much."""
        self._left[what] -= amount
        if self._left[what] < 0:
            raise GrammarError(f"is too complex: it has more than {_LIMITS[what]} {what}")


def parser_limits() -> LLParserLimits:
    """llguidance's own limits."""
    return LLParserLimits(
        max_items_in_row=2000,
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=12_000,
        max_lexer_states=50_000,  # some 30 MB
        max_grammar_size=100_000,
        precompute_large_lexemes=True,
        verbose_errors=False,  # they quote the grammar and the tokens
    )
