"""A conversation that shows what the model should do."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

Part = str | Image.Image
Role = Literal["system", "user", "assistant", "tool"]
Split = Literal["train", "exam"]

_EXAM_SHARE = 10  # one item of so many is kept for the exam


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def arguments_json(self) -> str:
        """As OpenAI's clients send it."""
        return json.dumps(self.arguments)

    def as_json(self) -> str:
        """As the prompt's rules ask for it."""
        return json.dumps({"type": "function", "name": self.name, "parameters": self.arguments})

    def as_python(self) -> str:
        """As one element of the list that Llama 4 writes by itself."""
        given = ", ".join(f"{key}={json.dumps(value)}" for key, value in self.arguments.items())
        return f"{self.name}({given})"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. Of an assistant's, `learned` says whether the model is trained to write it."""

    role: Role
    parts: tuple[Part, ...] = ()
    calls: tuple[Call, ...] = ()  # an assistant's, instead of parts
    pythonic: bool = False  # the form of the calls
    learned: bool = True
    values_only: bool = False  # a JSON answer of which only the values are learned

    @property
    def text(self) -> str:
        """What the assistant writes."""
        if not self.calls:
            return "".join(part for part in self.parts if isinstance(part, str))
        if self.pythonic:
            return f"[{', '.join(call.as_python() for call in self.calls)}]"
        return "\n".join(call.as_json() for call in self.calls)


@dataclass(slots=True)
class Dialogue:
    """Turns, and the tools that are offered (as OpenAI's `tools`)."""

    turns: list[Turn] = field(default_factory=list)
    tools: Sequence[Mapping[str, Any]] = ()

    def system(self, text: str) -> Dialogue:
        """Appends a system message."""
        self.turns.append(Turn("system", (text,)))
        return self

    def ask(self, *question: Part) -> Dialogue:
        """Appends a user's message."""
        self.turns.append(Turn("user", question))
        return self

    def answer(self, text: str, *, values_only: bool = False) -> Dialogue:
        """Appends what the assistant should say."""
        self.turns.append(Turn("assistant", (text,), values_only=values_only))
        return self

    def call(self, *calls: Call, pythonic: bool = False, learned: bool = True) -> Dialogue:
        """Appends calls that the assistant should make."""
        self.turns.append(Turn("assistant", calls=calls, pythonic=pythonic, learned=learned))
        return self

    def result(self, text: str) -> Dialogue:
        """Appends a tool's result."""
        self.turns.append(Turn("tool", (text,)))
        return self


def belongs_to(key: str, split: Split) -> bool:
    """Whether an item may be used: each is either trained or kept for the exam, by its text.

    >>> belongs_to("17 + 25", "train") != belongs_to("17 + 25", "exam")
    True
    """
    return (zlib.crc32(key.encode()) % _EXAM_SHARE == 0) == (split == "exam")
