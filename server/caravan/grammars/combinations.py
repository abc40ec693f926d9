"""Foresees what llguidance does where several schemas hold for one value.

It works out their combination: of `allOf`, and of keywords beside `anyOf`, `enum` or `$ref`.
Options multiply there, so a schema of a kilobyte can take minutes and all memory. The same is done
here on bare shapes, and stopped when it has cost too much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from caravan.grammars.bounds import BOUNDS, combined_bounds, is_misread
from caravan.grammars.errors import TOO_COMPLEX, GrammarError
from caravan.grammars.keywords import Json, Schema
from caravan.grammars.limits import (
    MAX_COMBINED_DEPTH,
    MAX_COMBINED_PATTERNS,
    MAX_REFERENCE_DEPTH,
    Budget,
)
from caravan.grammars.unions import kinds

_ROOT = "#"
_APPLICATORS = ("const", "enum", "allOf", "anyOf", "oneOf", "$ref")


@dataclass(slots=True)
class _Simple:
    """One alternative: a value of one type."""

    kind: str
    patterns: int = 0
    multiple: float | None = None
    bounds: dict[str, float] = field(default_factory=dict)
    members: dict[str, _Shape] = field(default_factory=dict)  # properties, items
    rest: list[_Shape] = field(default_factory=list)  # what holds for members without a name
    weight: int = 0  # schemas inside

    def __post_init__(self) -> None:
        inside = [*self.members.values(), *self.rest]
        self.weight = sum(1 + _weight(shape) for shape in inside)


# Alternatives; a name is a definition's, which stays one until it is combined. None: anything.
_Shape = list[_Simple | str] | None


def _weight(shape: _Shape) -> int:
    return sum(1 if isinstance(one, str) else 1 + one.weight for one in shape or ())


def check_combinations(schema: Mapping[str, Any], budget: Budget) -> None:
    """Raises GrammarError if a prepared schema costs too much."""
    try:
        _Combiner(schema, budget)
    except RecursionError:
        raise GrammarError(TOO_COMPLEX) from None


class _Combiner:
    def __init__(self, root: Mapping[str, Any], budget: Budget) -> None:
        self._budget = budget
        definitions = root.get("$defs", {})
        self._schemas = {f"#/$defs/{name}": schema for name, schema in definitions.items()}
        self._schemas[_ROOT] = root
        self._shapes: dict[str, _Shape] = {}
        self._begun: set[str] = set()
        self._define(_ROOT, 0)

    def _define(self, name: str, depth: int) -> None:
        if name not in self._begun:
            self._begun.add(name)
            self._shapes[name] = self._shape(self._schemas[name], depth)

    def _shape(self, schema: Schema, depth: int) -> _Shape:
        if depth > MAX_REFERENCE_DEPTH:
            raise GrammarError(TOO_COMPLEX)
        if isinstance(schema, bool):
            return None if schema else []
        shape = self._own_shape(schema, depth)
        for keyword in _APPLICATORS:
            if keyword in schema:
                for other in self._applied(schema, keyword, depth):
                    shape = self._combined(shape, other, 0)
        return shape

    def _own_shape(self, schema: Mapping[str, Any], depth: int) -> _Shape:
        """What the keywords say that do not lead to other schemas for the same value."""
        if not schema.keys() - {*_APPLICATORS, "$defs"}:
            return None
        alternatives: list[_Simple | str] = []
        for kind in sorted(kinds({"type": schema["type"]} if "type" in schema else {})):
            simple = _Simple(kind)
            if kind == "object":
                simple = self._object(schema, depth + 1)
            elif kind == "array":
                simple = self._array(schema, depth + 1)
            elif kind == "string":
                simple.patterns = sum(keyword in schema for keyword in ("pattern", "format"))
            elif kind == "number":
                simple.multiple = schema.get("multipleOf")
                simple.bounds = {name: schema[name] for name in BOUNDS if name in schema}
            alternatives.append(simple)
        return alternatives

    def _object(self, schema: Mapping[str, Any], depth: int) -> _Simple:
        properties = schema.get("properties", {})
        patterns = schema.get("patternProperties", {}).values()
        members = {name: self._shape(inner, depth) for name, inner in properties.items()}
        rest = [self._shape(inner, depth) for inner in patterns]
        members = {name: self._with_rest(shape, rest, 0) for name, shape in members.items()}
        if "additionalProperties" in schema:
            rest.append(self._shape(schema["additionalProperties"], depth))
        return _Simple("object", members=members, rest=rest)

    def _array(self, schema: Mapping[str, Any], depth: int) -> _Simple:
        prefix = enumerate(schema.get("prefixItems", ()))
        members = {str(index): self._shape(inner, depth) for index, inner in prefix}
        rest = [self._shape(schema["items"], depth)] if "items" in schema else []
        return _Simple("array", members=members, rest=rest)

    def _applied(self, schema: Mapping[str, Any], keyword: str, depth: int) -> Iterator[_Shape]:
        value = schema[keyword]
        if keyword == "$ref":
            self._define(value, depth + 1)
            yield [value]
        elif keyword == "allOf":
            for option in value:
                yield self._shape(option, depth + 1)
        elif keyword in ("anyOf", "oneOf"):
            yield self._either(self._shape(option, depth + 1) for option in value)
        else:
            yield [_constant(option) for option in ([value] if keyword == "const" else value)]

    def _either(self, options: Iterator[_Shape]) -> _Shape:
        alternatives: list[_Simple | str] = []
        for option in options:
            if option is None:
                return None
            alternatives += option
        return alternatives

    def _combined(self, a: _Shape, b: _Shape, depth: int) -> _Shape:
        if a is None or b is None:
            return b if a is None else a
        if depth > MAX_COMBINED_DEPTH:
            raise GrammarError(TOO_COMPLEX)
        out: list[_Simple | str] = []
        for left in a:
            for right in b:
                both = self._pair(left, right, depth)
                if both is None:
                    return None
                out += both
        return out

    def _pair(self, a: _Simple | str, b: _Simple | str, depth: int) -> _Shape:
        if isinstance(a, str) or isinstance(b, str):
            return self._combined(self._followed(a), self._followed(b), depth + 1)
        self._budget.spend("combinations of schemas", 1 + a.weight + b.weight)
        return [self._both(a, b, depth + 1)] if a.kind == b.kind else []

    def _followed(self, one: _Simple | str) -> _Shape:
        if isinstance(one, _Simple):
            return [one]
        if one not in self._shapes:
            raise GrammarError(
                "has a `$ref` with other keywords beside it that leads back to itself"
            )
        return self._shapes[one]

    def _both(self, a: _Simple, b: _Simple, depth: int) -> _Simple:
        patterns = a.patterns + b.patterns
        if patterns > MAX_COMBINED_PATTERNS:
            raise GrammarError(TOO_COMPLEX)
        if a.multiple and b.multiple and a.multiple != b.multiple:
            raise GrammarError("combines two `multipleOf`; use their common multiple")
        members = {name: self._with_rest(shape, b.rest, depth) for name, shape in a.members.items()}
        for name, shape in b.members.items():
            if name in a.members:
                members[name] = self._combined(a.members[name], shape, depth)
            else:
                members[name] = self._with_rest(shape, a.rest, depth)
        rest = [*a.rest, *b.rest]
        if len(a.rest) == len(b.rest) == 1:
            rest = [self._combined(a.rest[0], b.rest[0], depth)]
        bounds = combined_bounds(a.bounds, b.bounds)
        if is_misread(bounds):
            raise GrammarError(
                "combines bounds of a number less than 1 apart, of which an exclusive one is an "
                "integer; put them into one schema"
            )
        return _Simple(a.kind, patterns, a.multiple or b.multiple, bounds, members, rest)

    def _with_rest(self, shape: _Shape, rest: list[_Shape], depth: int) -> _Shape:
        """A named member, where the other side speaks of members without a name."""
        for other in rest:
            shape = self._combined(shape, other, depth)
        return shape


def _constant(value: Json) -> _Simple:
    if isinstance(value, dict):
        return _Simple("object", members={name: [_constant(v)] for name, v in value.items()})
    if isinstance(value, list):
        return _Simple("array", members={str(i): [_constant(v)] for i, v in enumerate(value)})
    (kind,) = kinds({"const": value})
    return _Simple(kind, patterns=int(kind == "string"))
