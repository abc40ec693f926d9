"""What a request's output is held to: the grammar, built and checked before anything is generated.

Compiling takes up to a second for what somebody made complex on purpose. It has threads of its
own, so that it never holds up the event loop, nor requests without a grammar.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from caravan.api.schema.chat import ChatBody
from caravan.api.schema.output import ResponseFormat, Schema, StructuredOutputs
from caravan.api.schema.sampling import SamplingBody
from caravan.api.toolset import Toolset
from caravan.api.validation import shown
from caravan.engine.vocabulary import grammar_vocabulary
from caravan.errors import InvalidGrammar, InvalidValue
from caravan.grammars import constraints
from caravan.grammars import tools as calls
from caravan.grammars.checker import Checker
from caravan.grammars.errors import GrammarError
from caravan.text.tokenizer import Tokenizer

THREADS = 2


class Constraint(NamedTuple):
    """How a grammar is built, and the field that it comes from."""

    build: Callable[[], str]
    param: str


class GrammarDesk:
    """Checks the grammars of requests."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Begins to read the vocabulary, which takes a second: it is there before the model is."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="grammar")
        self._checker = self._threads.submit(lambda: Checker(grammar_vocabulary(tokenizer)))

    async def grammar(self, constraint: Constraint) -> str:
        """The checked grammar. Raises InvalidGrammar, which names the field and says why."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._checked, constraint.build)
        except GrammarError as error:
            where = f" (at {shown(error.path)})" if error.path else ""
            raise InvalidGrammar(
                f"`{constraint.param}`{where} {error.reason}.", param=constraint.param
            ) from None

    def _checked(self, build: Callable[[], str]) -> str:
        grammar = build()
        self._checker.result().check(grammar)
        return grammar


def chat_constraint(body: ChatBody, tools: Toolset | None) -> Constraint | None:
    """Of a chat; None: its output is free. Raises InvalidValue."""
    schema = _schema(body.response_format)
    if tools is None:
        field = "response_format"
        if body.response_format.type == "json_schema":
            field += ".json_schema.schema"
        constraint = _of_schema(schema, field) or _of_outputs(body.structured_outputs)
    else:
        constraint = _of_tools(tools, schema)
    _check_ends(body, constraint)
    return constraint


def completion_constraint(body: SamplingBody) -> Constraint | None:
    """Of a raw prompt's completion. Raises InvalidValue."""
    constraint = _of_outputs(body.structured_outputs)
    _check_ends(body, constraint)
    return constraint


def _check_ends(body: SamplingBody, constraint: Constraint | None) -> None:
    """Where a grammar says when the output ends, nothing else may."""
    if constraint is None:
        return
    for field in ("min_tokens", "ignore_eos"):
        if getattr(body, field):
            raise InvalidValue(
                f"`{field}` contradicts `{constraint.param}`, which says where the output ends; "
                "leave one of the two out.",
                param=field,
            )


def _schema(given: ResponseFormat) -> Schema | None:
    if given.type == "json_object":
        return {"type": "object"}
    return None if given.json_schema is None else given.json_schema.schema_


def _of_tools(tools: Toolset, answer: Schema | None) -> Constraint | None:
    """Calls; where they may be left out, the answer in their place."""
    rules, parallel = tools.rules, tools.parallel
    if tools.choice != "auto":
        return Constraint(lambda: calls.required(rules, parallel=parallel), "tools")
    if answer is not None:
        return Constraint(lambda: calls.either(rules, answer, parallel=parallel), "response_format")
    if tools.enforced:
        return Constraint(lambda: calls.automatic(rules, parallel=parallel), "tools")
    return None


def _of_schema(schema: Schema | None, param: str) -> Constraint | None:
    return None if schema is None else Constraint(lambda: constraints.json_schema(schema), param)


def _of_outputs(given: StructuredOutputs | None) -> Constraint | None:
    if given is None:
        return None
    field = "structured_outputs."
    regex, choice, grammar = given.regex, given.choice, given.grammar
    if regex is not None:
        return Constraint(lambda: constraints.regex(regex), field + "regex")
    if grammar is not None:
        return Constraint(lambda: constraints.lark(grammar), field + "grammar")
    if choice:
        return Constraint(lambda: constraints.choice(choice), field + "choice")
    if given.json_ is not None:
        return _of_schema(given.json_, field + "json")
    return Constraint(constraints.json_object, field + "json_object")
