"""Looks over a client's Lark grammar before llguidance reads it.

What llguidance adds to Lark is refused: special tokens and references to other grammars, which
would let a client out of the place that its grammar has in ours; conditions on tokens, which a
server cannot keep; intersections and negations, whose cost has no bound. A schema after `%json` is
held to the same rules as any other.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

from caravan.grammars.errors import GrammarError
from caravan.grammars.limits import MAX_GRAMMAR_BYTES, Budget, Resource
from caravan.grammars.regexes import check_regex
from caravan.grammars.schemas import guidance_schema

_TOKEN = re.compile(
    r"""
      (?P<string> "(?:\\.|[^"\\\n])*"i? )
    | (?P<comment> (?:\#|//)[^\n]* )
    | /(?P<regex> (?:\\.|[^/\\])+ )/(?P<flags> [a-z]* )
    | (?P<special> <[^<>\s]+> )
    | (?P<reference> @ )
    | (?P<directive> %[a-z]* )
    | (?P<name> [A-Za-z_][A-Za-z0-9_\-]* )
    | (?P<number> \d+ )
    | (?P<repeat> ~[ \t]*(?=\d) )
    | (?P<attribute> = )
    | (?P<parameter> :: )
    | (?P<definition> : )
    | (?P<group> [(\[] )
    | (?P<operation> [~&] )
    | (?P<repetition> [?*+] )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)

_REFUSED = {
    "special": "special tokens are not supported",
    "reference": "references to other grammars are not supported",
    "attribute": "attributes of rules are not supported, except `lazy`",
    "parameter": "parameters of rules are not supported",
    "operation": "`&` and `~` are not supported",
}
_COSTS: dict[str, Resource] = {
    "string": "symbols",
    "regex": "symbols",
    "name": "symbols",
    "definition": "rules, terminals and groups",
    "group": "rules, terminals and groups",
    "repetition": "repetitions",
}
_DIRECTIVES = ("%import", "%ignore")


def guidance_lark(grammar: str, budget: Budget) -> str:
    """The grammar for llguidance. Raises GrammarError."""
    return _Scan(grammar, budget).text


class _Scan:
    """One pass over a grammar; `text` is the one to be compiled."""

    def __init__(self, grammar: str, budget: Budget) -> None:
        if len(grammar) > MAX_GRAMMAR_BYTES:
            raise GrammarError(f"has more than {MAX_GRAMMAR_BYTES} characters")
        self._grammar = grammar
        self._at = 0
        self._budget = budget
        self._out: list[str] = []
        while self._at < len(grammar):
            self._token()
        self.text = "".join(self._out)

    def _token(self) -> None:
        token = _TOKEN.match(self._grammar, self._at)
        assert token is not None  # `other` matches anything
        kind = token.lastgroup
        if kind == "flags":
            kind = "regex"
            self._regex(token["regex"], token["flags"])
        if kind in _REFUSED:
            self._fail(_REFUSED[kind])
        if kind == "directive":
            self._directive(token[0])
            return
        if kind in _COSTS:
            self._budget.spend(_COSTS[kind])
        if kind != "comment":
            self._out.append(token[0])
        self._at = token.end()

    def _regex(self, pattern: str, flags: str) -> None:
        if "x" in flags or "l" in flags:
            self._fail("a flag of a regular expression is not supported")
        try:
            self._budget.spend("characters in its patterns", len(pattern))
            check_regex(pattern, self._budget)
        except GrammarError as error:
            problem = f"has a regular expression in {self._place()} that {error.reason}"
            raise GrammarError(problem) from None

    def _directive(self, name: str) -> None:
        end = self._at + len(name)
        if name in _DIRECTIVES:
            self._out.append(name)
        elif name in ("%json", "%llguidance"):
            value, end = self._json(end)
            if name == "%llguidance" and value != {}:
                self._fail("options of `%llguidance` are not supported")
            if name == "%json":
                if not isinstance(value, dict | bool):
                    self._fail("a schema must be an object or a boolean")
                schema = guidance_schema(value, self._budget)
                self._out.append("%json " + json.dumps(schema, ensure_ascii=False))
        else:
            self._fail("this directive is not supported")
        self._at = end

    def _json(self, start: int) -> tuple[object, int]:
        while self._grammar[start : start + 1].isspace():
            start += 1
        try:
            return json.JSONDecoder().raw_decode(self._grammar, start)
        except (ValueError, RecursionError):
            self._fail("the JSON is invalid")

    def _fail(self, problem: str) -> NoReturn:
        raise GrammarError(f"is not a valid grammar, {self._place()}: {problem}")

    def _place(self) -> str:
        line = self._grammar.count("\n", 0, self._at) + 1
        column = self._at - (self._grammar.rfind("\n", 0, self._at) + 1) + 1
        return f"line {line}, column {column}"
