"""A client's JSON schema, made into one that llguidance obeys to the letter.

Annotations and unused definitions are left out, references lead to one list of definitions, and
keywords that llguidance would ignore or break are refused. Every output under the schema that comes
out is valid under the one that went in; some that are valid may be out of reach.
"""

from __future__ import annotations

from collections.abc import Sized
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from caravan.grammars.bounds import BOUNDS, without_misreading
from caravan.grammars.combinations import check_combinations
from caravan.grammars.errors import GrammarError
from caravan.grammars.keywords import (
    ANNOTATIONS,
    FORMATS,
    OPEN_FORMATS,
    PATTERN_FORMATS,
    TYPES,
    UNSUPPORTED,
    Json,
    Schema,
)
from caravan.grammars.limits import (
    MAX_COUNT,
    MAX_NAME_PATTERNS,
    MAX_NUMBER,
    MAX_OPTIONS,
    MAX_PROPERTIES,
    MAX_SCHEMA_DEPTH,
    MIN_NUMBER,
    Budget,
)
from caravan.grammars.regexes import check_regex, is_unwritable
from caravan.grammars.unions import are_apart, kinds

Path = tuple[str, ...]

# Between two tokens of JSON: nothing, a space, or a line break and an indentation. llguidance lets
# this match once in a place, so that a model cannot go on with white space for ever.
WHITE_SPACE = r"\x20|\n[ \t]{0,40}"

# `\u` would let a name be spelled in two ways, and so come twice, the second time with any value.
ESCAPES = r"nrbtf\"" + "\\"

_OPTIONS = {"whitespace_pattern": WHITE_SPACE, "json_allowed_escapes": ESCAPES}

_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_UNIONS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAX_INTEGER = 2**63 - 2**10  # the largest floating-point number that 64 bits hold as an integer


def guidance_schema(schema: Schema, budget: Budget) -> dict[str, Any]:
    """The schema for llguidance, its options included. Raises GrammarError."""
    if schema is False:
        raise GrammarError("is `false`, so that no output could be valid")
    prepared = _Preparation({} if schema is True else schema, budget).prepared
    check_combinations(prepared, budget)
    return {**prepared, "x-guidance": _OPTIONS}


class _Preparation:
    def __init__(self, root: dict[str, Any], budget: Budget) -> None:
        self._root = root
        self._budget = budget
        self._multiples: set[Decimal] = set()
        self._names: dict[Path, str] = {}  # of the definitions that references lead to
        self._pending: list[Path] = []
        prepared = self._schema(root, ())
        assert isinstance(prepared, dict), root
        self.prepared = prepared
        definitions: dict[str, Any] = {}
        while self._pending:
            path = self._pending.pop()
            definitions[self._names[path]] = self._schema(self._lookup(path), path)
        if definitions:
            self.prepared["$defs"] = definitions

    def _schema(self, schema: Json, path: Path) -> Schema:
        self._count_node(path)
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise GrammarError("has a schema that is neither an object nor a boolean", _shown(path))
        if path and "$id" in schema:
            raise GrammarError(
                "uses `$id` inside; only the whole schema may have one", _shown(path)
            )
        out: dict[str, Any] = {}
        for keyword, value in _modern(schema).items():
            self._keyword(out, keyword, value, schema, (*path, keyword))
        _settle_bounds(out)
        _check_repeated_names(out, path)
        return out

    def _keyword(
        self, out: dict[str, Any], keyword: str, value: Json, schema: dict[str, Any], path: Path
    ) -> None:
        if keyword in _UNIONS:
            self._union(out, keyword, value, path)
        elif keyword in ("properties", "patternProperties"):
            out[keyword] = self._properties(keyword, value, path)
        elif keyword in ("additionalProperties", "items"):
            out[keyword] = self._schema(value, path)
        elif keyword in BOUNDS:
            out[keyword] = _number(value, path)
        elif keyword in _COUNTS:
            out[keyword] = _count(value, path)
        elif keyword in UNSUPPORTED:
            if value not in UNSUPPORTED[keyword]:
                raise GrammarError(
                    f"uses the keyword `{keyword}`, which output cannot be held to", _shown(path)
                )
        elif keyword == "if":
            if "then" in schema or "else" in schema:
                raise GrammarError(
                    "uses the keyword `if`, which output cannot be held to", _shown(path)
                )
        elif keyword not in ANNOTATIONS:
            self._constraint(out, keyword, value, schema, path)

    def _constraint(
        self, out: dict[str, Any], keyword: str, value: Json, schema: dict[str, Any], path: Path
    ) -> None:
        match keyword:
            case "type":
                out[keyword] = _types(value, path)
            case "required":
                out[keyword] = self._required(value, path)
            case "enum":
                out[keyword] = self._enum(value, path)
            case "const":
                out[keyword] = self._constant(value, path)
            case "pattern":
                out[keyword] = self._pattern(value, path)
            case "format":
                self._format(out, value, schema, path)
            case "multipleOf":
                out[keyword] = self._multiple(value, path)
            case "$ref":
                out[keyword] = self._reference(value, path)
            case _:
                pass  # unknown keywords say nothing

    def _count_node(self, path: Path) -> None:
        self._budget.spend("subschemas and names")
        if len(path) > MAX_SCHEMA_DEPTH:
            raise GrammarError(f"has more than {MAX_SCHEMA_DEPTH} levels", _shown(path))

    def _union(self, out: dict[str, Any], keyword: str, value: Json, path: Path) -> None:
        if not isinstance(value, list) or not value:
            raise _invalid(keyword, "a list of schemas", path)
        _check_length(value, MAX_OPTIONS, f"schemas in one `{keyword}`", path)
        options = [self._schema(option, (*path, str(i))) for i, option in enumerate(value)]
        if keyword == "oneOf" and are_apart([self._resolved(option) for option in value]):
            keyword = "anyOf"  # at most one can hold, so one of them is any of them
        if keyword == "anyOf" and keyword in out:
            keyword, options = "allOf", [{"anyOf": options}]
        out[keyword] = [*out.get(keyword, ()), *options]

    def _properties(self, keyword: str, value: Json, path: Path) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _invalid(keyword, "an object of schemas", path)
        _check_length(value, MAX_PROPERTIES, "properties in one object", path)
        if keyword == "patternProperties":
            _check_length(value, MAX_NAME_PATTERNS, "patterns of names", path)
            for pattern in value:
                self._pattern(pattern, path)
        return {name: self._schema(schema, (*path, name)) for name, schema in value.items()}

    def _required(self, value: Json, path: Path) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise _invalid("required", "a list of strings", path)
        _check_length(value, MAX_PROPERTIES, "properties in one object", path)
        for _ in value:
            self._count_node(path)
        return list(dict.fromkeys(value))

    def _enum(self, value: Json, path: Path) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise _invalid("enum", "a list of values", path)
        composites = [option for option in value if isinstance(option, dict | list)]
        _check_length(composites, MAX_OPTIONS, "lists and objects in an `enum`", path)
        return [self._constant(option, path) for option in value]

    def _constant(self, value: Json, path: Path) -> Json:
        self._budget.spend("constants")
        if isinstance(value, str):
            if any(map(is_unwritable, value)):
                raise GrammarError("has a constant with a control character", _shown(path))
        elif isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                self._count_node(path)
                self._constant(item, (*path, "0"))
        elif value is not None and not isinstance(value, bool):
            _number(value, path)
        return value

    def _pattern(self, value: Json, path: Path) -> str:
        if not isinstance(value, str):
            raise _invalid("pattern", "a string", path)
        self._budget.spend("characters in its patterns", len(value))
        try:
            check_regex(value, self._budget, in_json=True)
        except GrammarError as error:
            raise GrammarError(f"has a pattern that {error.reason}", _shown(path)) from None
        return value

    def _format(self, out: dict[str, Any], value: Json, schema: dict[str, Any], path: Path) -> None:
        if not isinstance(value, str):
            raise _invalid("format", "a string", path)
        if value in OPEN_FORMATS or "string" not in kinds(schema):
            return
        if value not in FORMATS:
            known = ", ".join(sorted(FORMATS))
            raise GrammarError(f"has a `format` that is none of {known}", _shown(path))
        if value not in PATTERN_FORMATS:
            out["format"] = value
        elif "pattern" in schema:
            out.setdefault("allOf", []).append({"pattern": PATTERN_FORMATS[value]})
        else:
            out["pattern"] = PATTERN_FORMATS[value]

    def _multiple(self, value: Json, path: Path) -> float:
        number = _number(value, path)
        if number <= 0:
            raise _invalid("multipleOf", "a positive number", path)
        exact = Decimal(repr(number)).normalize()
        if exact not in self._multiples:
            self._multiples.add(exact)
            self._budget.spend("different steps of `multipleOf`", _digits(exact))
        return number

    def _reference(self, value: Json, path: Path) -> str:
        target = _pointer(value, path)
        self._lookup(target)
        if not target:
            return "#"
        if target not in self._names:
            self._names[target] = str(len(self._names))
            self._pending.append(target)
        return f"#/$defs/{self._names[target]}"

    def _lookup(self, target: Path) -> Json:
        at: Json = self._root
        for name in target:
            if isinstance(at, dict) and name in at:
                at = at[name]
            elif isinstance(at, list) and name.isdecimal() and int(name) < len(at):
                at = at[int(name)]
            else:
                raise GrammarError("has a `$ref` that leads nowhere")
        return at

    def _resolved(self, schema: Json) -> Json:
        """The schema that a reference with nothing beside it leads to, in the end."""
        for _ in range(MAX_SCHEMA_DEPTH):
            if not isinstance(schema, dict) or {*schema} - ANNOTATIONS != {"$ref"}:
                break
            schema = self._lookup(_pointer(schema["$ref"], ()))
        return schema


def _modern(schema: dict[str, Any]) -> dict[str, Any]:
    """The keywords of lists as draft 2020-12 has them."""
    if not isinstance(schema.get("items"), list):
        return {key: value for key, value in schema.items() if key != "additionalItems"}
    names = {"items": "prefixItems", "additionalItems": "items"}
    return {names.get(key, key): value for key, value in schema.items() if key != "prefixItems"}


def _settle_bounds(out: dict[str, Any]) -> None:
    """Ends integers at 64 bits; a model could go on with digits for ever.

    Not beside `multipleOf`: the two together are beyond what llguidance can work out.
    """
    types = out.get("type", TYPES)
    bounds = {name: out.pop(name) for name in BOUNDS if name in out}
    if "number" in types:
        bounds = without_misreading(bounds)
    elif "integer" in types and "multipleOf" not in out:
        if "minimum" not in bounds and "exclusiveMinimum" not in bounds:
            bounds["minimum"] = -_MAX_INTEGER
        if "maximum" not in bounds and "exclusiveMaximum" not in bounds:
            bounds["maximum"] = _MAX_INTEGER
    out |= bounds


def _check_repeated_names(out: dict[str, Any], path: Path) -> None:
    """A name that no property has may come twice, and then counts for one."""
    is_closed = out.get("additionalProperties") is False and not out.get("patternProperties")
    free = out.get("minProperties", 0) - len(out.get("required", ()))
    if free > 1 and not is_closed:
        raise GrammarError(
            "uses `minProperties` to ask for more than one property that is not in `required`",
            _shown(path),
        )


def _check_length(items: Sized, most: int, what: str, path: Path) -> None:
    if len(items) > most:
        raise GrammarError(f"has more than {most} {what}", _shown(path))


def _types(value: Json, path: Path) -> list[str]:
    types = value if isinstance(value, list) else [value]
    if not types or not all(name in TYPES for name in types):
        raise _invalid("type", "one of " + ", ".join(TYPES) + ", or a list of them", path)
    return list(map(str, types))


def _number(value: Json, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(path[-1], "a number", path)
    if not abs(value) <= MAX_NUMBER or 0 < abs(value) < MIN_NUMBER:  # nor is NaN
        raise GrammarError("has a number that is too large or too small", _shown(path))
    return value


def _count(value: Json, path: Path) -> int:
    count = _number(value, path)
    if not 0 <= count <= MAX_COUNT or count % 1:
        raise _invalid(path[-1], f"an integer from 0 to {MAX_COUNT}", path)
    return int(count)


def _digits(number: Decimal) -> int:
    """The number without its decimal point."""
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    return int(number) if exponent >= 0 else int("".join(map(str, digits)))


def _pointer(reference: Json, path: Path) -> Path:
    if not isinstance(reference, str):
        raise _invalid("$ref", "a string", path)
    if reference == "#":
        return ()
    if not reference.startswith("#/"):
        raise GrammarError(
            "has a `$ref` that does not point into the schema itself, like `#/$defs/name`",
            _shown(path),
        )
    parts = unquote(reference[2:]).split("/")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


def _invalid(keyword: str, expected: str, path: Path) -> GrammarError:
    return GrammarError(f"has a `{keyword}` that is not {expected}", _shown(path))


def _shown(path: Path) -> str:
    """A path as a JSON pointer."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
