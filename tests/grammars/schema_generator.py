"""Random schemas of the kinds that JSONSchemaBench collects from the wild."""

from __future__ import annotations

import random
from typing import Any

Schema = dict[str, Any]

FORMATS = (
    *("date", "date-time", "time", "duration", "email", "hostname"),
    *("ipv4", "ipv6", "uuid", "uri"),
)
PATTERNS = (
    *("^[A-Z]{2}[0-9]{3}$", "[0-9]+", "^(foo|ba[rz])+$", r"^\S+ \S+$", "^[^@]+@[a-z]{1,4}$", "x?y"),
    *(r"^\d{3}-\d{4}$", "^$|^a", r"^[\w.-]+$", "^é+", r"^.{2,5}$", r"^\w+\.(png|gif)$", "^[b-d]"),
)
NAME_PATTERNS = ("^x-", "^[a-c]+$", "^[0-9]{1,3}$", "^[d-f]+_id$")
NAMES = ("id", "name", "tags", "a", "b", "c", 'quo"te', "sl/ash", "ünï", "back\\", "x-y", "7")
CONSTANTS = (0, 1, -7, 2.5, 1e-3, "a", "", 'é\n"\\/', True, False, None, [1, "x"], {"k": [None]})


class Generator:
    """Each schema from a seed of its own."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._definitions: list[str] = []

    def schema(self) -> Schema:
        """A whole schema: an object most of the time, with definitions now and then."""
        self._definitions = ["node", "leaf"] if self._chance(0.3) else []
        schema = self._object(3) if self._chance(0.7) else self._any(3)
        if self._definitions:
            tree = {
                "type": "object",
                "properties": {
                    "value": self._any(0),
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["value"],
                "additionalProperties": False,
            }
            self._definitions.clear()
            schema["$defs"] = {"node": tree, "leaf": self._any(1)}
        return schema

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _any(self, depth: int) -> Schema:
        makers = [self._string, self._string, self._number, self._integer, self._enum, self._plain]
        if depth:
            makers += [self._object, self._object, self._array, self._union, self._all, self._tuple]
            makers += [self._map, self._choice]
            if self._definitions:
                makers += [self._reference, self._reference]
        schema = self._random.choice(makers)(depth)
        if self._chance(0.2):
            schema |= {"title": "T", "description": "d", "default": 3, "x-extra": {"not": 1}}
        return schema

    def _plain(self, depth: int) -> Schema:
        return self._random.choice(
            [{"type": "null"}, {"type": "boolean"}, {}, {"type": ["string", "null"]}]
        )

    def _enum(self, depth: int) -> Schema:
        if self._chance(0.3):
            return {"const": self._random.choice(CONSTANTS)}
        return {"enum": self._random.sample(CONSTANTS, self._random.randint(1, 5))}

    def _string(self, depth: int) -> Schema:
        schema: Schema = {"type": "string"}
        kind = self._random.randrange(5)
        if kind == 0:
            schema["format"] = self._random.choice(FORMATS)
        elif kind == 1:
            schema["pattern"] = self._random.choice(PATTERNS)
        if kind == 2 or self._chance(0.05):
            schema["minLength"] = self._random.randint(0, 4)
        if kind == 2 and self._chance(0.7):
            schema["maxLength"] = self._random.randint(4, 9)
        return schema

    def _number(self, depth: int) -> Schema:
        schema: Schema = {"type": "number"}
        low = round(self._random.uniform(-200, 200), self._random.randint(0, 3))
        if self._chance(0.4):
            schema[self._random.choice(["minimum", "exclusiveMinimum"])] = low
        if self._chance(0.4):
            high = low + self._random.choice([1, 2.5, 0.01, 1000])
            schema[self._random.choice(["maximum", "exclusiveMaximum"])] = round(high, 4)
        if self._chance(0.15):
            schema = {"type": "number", "multipleOf": self._random.choice([0.01, 0.5, 3, 2.5])}
        return schema

    def _integer(self, depth: int) -> Schema:
        schema: Schema = {"type": self._random.choice(["integer", "integer", ["integer", "null"]])}
        low = self._random.randint(-300, 300)
        if self._chance(0.4):
            schema[self._random.choice(["minimum", "exclusiveMinimum"])] = low
        if self._chance(0.4):
            schema[self._random.choice(["maximum", "exclusiveMaximum"])] = low + 60
        if self._chance(0.2):
            schema["multipleOf"] = self._random.choice([1, 2, 5, 7, 25])
        return schema

    def _object(self, depth: int) -> Schema:
        names = self._random.sample(NAMES, self._random.randint(0, 5))
        schema: Schema = {"type": "object"}
        parts: Schema = {"properties": {name: self._any(depth - 1) for name in names}}
        required = [name for name in names if self._chance(0.6)]
        if self._chance(0.1):
            required.append("unnamed")
        parts["required"] = required
        if self._chance(0.6):
            parts["additionalProperties"] = self._chance(0.1) or "unnamed" in required
        elif self._chance(0.2):
            parts["additionalProperties"] = self._any(depth - 1)
        if self._chance(0.15):
            pattern = self._random.choice(NAME_PATTERNS)
            parts["patternProperties"] = {pattern: self._any(depth - 1)}
        for keyword in self._random.sample(list(parts), len(parts)):  # their order has a meaning
            schema[keyword] = parts[keyword]
        return schema

    def _map(self, depth: int) -> Schema:
        schema: Schema = {"type": "object", "additionalProperties": self._any(depth - 1)}
        if self._chance(0.4):
            schema["minProperties"] = self._random.randint(0, 1)
        if self._chance(0.4):
            schema["maxProperties"] = self._random.randint(1, 3)
        return schema

    def _array(self, depth: int) -> Schema:
        schema: Schema = {"type": "array", "items": self._any(depth - 1)}
        if self._chance(0.5):
            schema["minItems"] = self._random.randint(0, 3)
        if self._chance(0.5):
            schema["maxItems"] = self._random.randint(3, 5)
        return schema

    def _tuple(self, depth: int) -> Schema:
        prefix = [self._any(depth - 1) for _ in range(self._random.randint(1, 3))]
        schema: Schema = {"type": "array", "prefixItems": prefix}
        if self._chance(0.5):
            schema["items"] = self._random.choice([False, self._any(depth - 1)])
        if self._chance(0.5):
            schema["minItems"] = self._random.randint(0, len(prefix))
        return schema

    def _union(self, depth: int) -> Schema:
        options = [self._any(depth - 1) for _ in range(self._random.randint(1, 3))]
        return {"anyOf": [*options, {"type": "null"}] if self._chance(0.5) else options}

    def _choice(self, depth: int) -> Schema:
        """A `oneOf` that a property decides."""
        options = []
        for kind in self._random.sample(["cat", "dog", "eel"], self._random.randint(1, 3)):
            option = self._object(depth)
            option["properties"] = {"kind": {"const": kind}, **option["properties"]}
            option["required"] = ["kind", *option["required"]]
            options.append(option)
        return {"oneOf": options, "discriminator": {"propertyName": "kind"}}

    def _all(self, depth: int) -> Schema:
        kind = self._random.randrange(3)
        if kind == 0:
            return {"allOf": [self._object(depth), {"required": ["id"]}]}
        if kind == 1:
            return {"type": "object", "properties": {"z": {}}, "allOf": [self._object(depth)]}
        low, high = {"type": "integer", "minimum": -5}, {"maximum": 70, "multipleOf": 2}
        return {"allOf": self._random.sample([low, high], 2)}

    def _reference(self, depth: int) -> Schema:
        return {"$ref": f"#/$defs/{self._random.choice(self._definitions)}"}
