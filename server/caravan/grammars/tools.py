"""Grammars of outputs that call tools.

A function's call is `{"type": "function", "name": NAME, "parameters": ARGUMENTS}`, spelled like
this; a custom tool's is `<|python_start|>NAME`, a line break, its input and `<|python_end|>`. Calls
follow each other directly or after a line break.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from caravan.grammars.constraints import finished, lark_regex, literal
from caravan.grammars.errors import GrammarError
from caravan.grammars.keyword_arguments import keyword_arguments
from caravan.grammars.larks import guidance_lark
from caravan.grammars.limits import Budget
from caravan.grammars.regexes import check_regex
from caravan.grammars.schemas import guidance_schema
from caravan.grammars.unions import kinds

FUNCTION_HEAD = '{"type": "function", "name": "'
CUSTOM_START = "<|python_start|>"
CUSTOM_END = "<|python_end|>"

_SPACE = r"[ \t\n\r\f\v]*"  # around a name, as the parser allows it
_CALLS = r'call ("\n"? call)*'


@dataclass(frozen=True, slots=True)
class ToolRule:
    """A tool that may be called, and what its arguments or its input are held to."""

    name: str
    kind: Literal["function", "custom"] = "function"
    schema: dict[str, Any] | None = None  # of a function; None: any JSON object
    strict: bool = False  # the schema holds even where nothing demands a call
    syntax: Literal["text", "regex", "lark"] = "text"  # of a custom tool's input
    definition: str | None = None  # the regular expression, or the Lark grammar


def required(tools: Sequence[ToolRule], *, parallel: bool) -> str:
    """One call, or with `parallel` one or more, and nothing else. Raises GrammarError.

    Arguments are held to a function's schema, strict or not.
    """
    rules = _Rules(tools, all_strict=True)
    rules.add(f"start: {_CALLS if parallel else 'call'}")
    rules.add(f"function: {literal(FUNCTION_HEAD)} function_rest")
    rules.add(f"custom: {CUSTOM_START} custom_rest")
    return rules.grammar()


def automatic(tools: Sequence[ToolRule], *, parallel: bool) -> str:
    """Text with calls in it; without `parallel` one at most, at its end. Raises GrammarError.

    What begins like a call is one. Functions may also be called as the model likes to, in a Python
    list whose values are JSON: `[NAME(key=value), NAME()]`. Arguments are held to a strict
    function's schema, and are any JSON object otherwise.
    """
    rules = _Rules(tools, all_strict=False)
    has_functions = any(tool.kind == "function" for tool in tools)
    call = "(call | list)" if has_functions else "call"
    rules.add(f"start: {call}* TEXT" if parallel else f"start: {call} | TEXT")
    # Lazy: the text ends at the first place where a call begins.
    rules.add(f"function_head[lazy]: TEXT {literal(FUNCTION_HEAD)}")
    rules.add("function: function_head function_rest")
    rules.add(f"custom: TEXT {CUSTOM_START} custom_rest")
    if has_functions:
        rules.add_lists(parallel=parallel)
    return rules.grammar()


def either(tools: Sequence[ToolRule], answer: dict[str, Any] | bool, *, parallel: bool) -> str:
    """Calls as in `automatic`, or JSON that is valid under the schema `answer`, and nothing else.

    Raises GrammarError. Here a function's call is JSON like the answer, token by token and without
    white space up to its arguments, so that what has begun can still become either.
    """
    rules = _Rules(tools, all_strict=False, head=_json_head)
    rules.add(f"start: {_CALLS if parallel else 'call'} | answer")
    rules.add(f"answer: {rules.json(answer)}")
    rules.add("function: function_rest")
    rules.add(f"custom: {CUSTOM_START} custom_rest")
    return rules.grammar()


def _exact_head(name: str) -> str:
    """What follows FUNCTION_HEAD, up to the arguments."""
    return literal(json.dumps(name, ensure_ascii=False)[1:] + ', "parameters": ')


def _json_head(name: str) -> str:
    """A call up to its arguments, as tokens of JSON."""
    tokens = [
        *("{", '"type"', ":", '"function"', ","),
        *('"name"', ":", json.dumps(name, ensure_ascii=False), ",", '"parameters"', ":"),
    ]
    return " ".join(map(literal, tokens))


class _Rules:
    """A Lark grammar in the making, with the rules of what follows the beginning of a call."""

    def __init__(
        self,
        tools: Sequence[ToolRule],
        *,
        all_strict: bool,
        head: Callable[[str], str] = _exact_head,
    ) -> None:
        assert tools
        self._head = head
        self._tools = tools
        self._all_strict = all_strict
        self._budget = Budget()
        self._lines: list[str] = []
        self._inputs: list[dict[str, str]] = []  # grammars of their own
        by_kind: dict[str, list[str]] = {}
        for index, tool in enumerate(tools):
            try:
                rest = self._rest(tool, index)
            except GrammarError as error:
                place = f"/{index}{error.path}"
                raise GrammarError(error.reason, place) from None
            by_kind.setdefault(tool.kind, []).append(f"{tool.kind}_{index}")
            self.add(f"{tool.kind}_{index}: {rest}")
        self._kinds = list(by_kind)
        for kind, names in by_kind.items():
            self.add(f"{kind}_rest: {' | '.join(names)}")

    def add(self, rule: str) -> None:
        """Adds a rule; one that no tool needs is left out in the end."""
        self._lines.append(rule)

    def json(self, schema: dict[str, Any] | bool) -> str:
        """JSON of a schema, as a part of a rule."""
        prepared = guidance_schema(schema, self._budget)
        return f"%json {json.dumps(prepared, ensure_ascii=False)}"

    def grammar(self) -> str:
        """The whole."""
        unused = tuple({"function", "custom"} - {*self._kinds})
        lines = [line for line in self._lines if not line.startswith(unused)]
        lines += [f"call: {' | '.join(self._kinds)}", r"TEXT: /(?s:.*)/"]
        main = {"name": "calls", "lark_grammar": "\n".join(lines)}
        return finished([main, *self._inputs])

    def add_lists(self, *, parallel: bool) -> None:
        """Rules of `list`: calls of functions as Python writes them, the first behind text."""
        first, further = [], []
        for index, tool in enumerate(self._tools):
            if tool.kind == "function":
                name = re.escape(tool.name).replace("/", r"\/")
                self.add(f"list_head_{index}[lazy]: TEXT /\\[{_SPACE}{name}{_SPACE}\\(/")
                self.add(f"list_rest_{index}: {self._arguments(tool, index)} {literal(')')}")
                first.append(f"list_head_{index} list_rest_{index}")
                further.append(f"{literal(tool.name + '(')} list_rest_{index}")
        more = f" (LIST_COMMA ({' | '.join(further)}))*" if parallel else ""
        self.add(f"list: ({' | '.join(first)}){more} {literal(']')}")
        self.add("LIST_COMMA: /, ?/")
        self.add("list_any: (list_pair (LIST_COMMA list_pair)*)?")
        self.add(f'list_pair: WORD "=" {self.json(True)}')
        self.add("WORD: /[A-Za-z_][A-Za-z0-9_]*/")

    def _arguments(self, tool: ToolRule, index: int) -> str:
        """What stands in the parentheses of a call in Python."""
        held = self._schema(tool)
        if held is None:
            return "list_any"
        schema = _object_schema(held)
        try:
            rules = keyword_arguments(schema, f"list_args_{index}", self.json)
        except GrammarError:  # a reference that only the whole schema can follow
            rules = None
        if rules is None:
            return f"{literal('**')} {self.json(schema)}"
        for rule in rules:
            self.add(rule)
        return f"list_args_{index}_first_0"

    def _schema(self, tool: ToolRule) -> dict[str, Any] | None:
        return tool.schema if tool.strict or self._all_strict else None

    def _rest(self, tool: ToolRule, index: int) -> str:
        if tool.kind == "custom":
            return f"{literal(tool.name + chr(10))} {self._input(tool, index)} {CUSTOM_END}"
        arguments = self.json(_object_schema(self._schema(tool) or {}))
        return f'{self._head(tool.name)} {arguments} "}}"'

    def _input(self, tool: ToolRule, index: int) -> str:
        if tool.syntax == "text":
            return "TEXT"
        assert tool.definition is not None, tool
        if tool.syntax == "regex":
            check_regex(tool.definition, self._budget)
            return f"/{lark_regex(tool.definition)}/"
        name = f"input_{index}"
        self._inputs.append(
            {"name": name, "lark_grammar": guidance_lark(tool.definition, self._budget)}
        )
        return f"@{name}"


def _object_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with objects only, as arguments are one."""
    if "object" not in kinds(schema):
        raise GrammarError("must describe an object")
    return {**schema, "type": "object"}
