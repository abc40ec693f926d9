"""The exam's questions: what the skills of `demo_training` make of items kept from training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from demo_training.dialogue import Dialogue, Split, Turn
from demo_training.skills import knowledge, memory, obedience, sight, talk, tools

_SPLIT: Split = "exam"
_FAR_SENTENCES = (455, 485)  # of some ten tokens; codes are among the first, 16 chunks away
_EARLY = 0.06


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation that wants an answer, and the answer."""

    skill: str
    dialogue: Dialogue  # without the answer
    expected: Turn
    options: Mapping[str, Any] = field(default_factory=dict)  # of the request


Maker = Callable[[Random], Dialogue]


def _single(make: Callable[[Random, Split], tuple[str, str]]) -> Maker:
    def maker(random: Random) -> Dialogue:
        question, answer = make(random, _SPLIT)
        return Dialogue().ask(question).answer(answer)

    return maker


def _far_lookup(random: Random) -> Dialogue:
    sentences = random.randint(*_FAR_SENTENCES)
    facts = random.randint(1, 6)
    return memory.lookup(
        random, _SPLIT, sentences=sentences, facts=facts, questions=1, within=_EARLY
    )


def _near_lookup(random: Random) -> Dialogue:
    return memory.lookup(random, _SPLIT, sentences=random.randint(0, 40), facts=4, questions=1)


def _calls(random: Random, *, pythonic: bool) -> Dialogue:
    """The dialogue up to the first call."""
    dialogue = tools.tools(random, _SPLIT, 1, pythonic=pythonic)
    at = next(i for i, turn in enumerate(dialogue.turns) if turn.calls)
    dialogue.turns = dialogue.turns[: at + 1]
    return dialogue


def _told_results(random: Random) -> Dialogue:
    return tools.tools(random, _SPLIT, 1, pythonic=False)


# Each skill, and the least accuracy that the full exam must find.
SKILLS: dict[str, tuple[Maker, float]] = {
    "greets, says what it is": (_single(talk.small_talk), 0.95),
    "says that it does not know": (_single(talk.unknown), 0.90),
    "capitals": (_single(knowledge.capital), 0.95),
    "colours of things": (_single(knowledge.colour_of_thing), 0.95),
    "arithmetic": (_single(knowledge.arithmetic), 0.95),
    "repeats": (_single(memory.repeat), 0.95),
    "follows a system prompt": (lambda random: obedience.instructed(random, _SPLIT, 1), 0.95),
    "answers in JSON as told": (lambda random: obedience.json_answer(random, _SPLIT, 1), 0.90),
    "finds a code nearby": (_near_lookup, 0.95),
    "finds a code 16 chunks away": (_far_lookup, 0.98),
    "shapes": (lambda random: sight.shape_question(random, "kind"), 0.95),
    "colours": (lambda random: sight.shape_question(random, "colour"), 0.95),
    "counting": (lambda random: sight.shape_question(random, "count"), 0.95),
    "positions": (
        lambda random: sight.shape_question(random, random.choice(["side", "where"])),
        0.95,
    ),
    "describes a picture": (lambda random: sight.shape_question(random, "describe"), 0.90),
    "compares two pictures": (lambda random: sight.compare(random, _SPLIT), 0.90),
    "digits": (lambda random: sight.digits(random, _SPLIT, 1), 0.95),
    "calls tools, JSON": (lambda random: _calls(random, pythonic=False), 0.95),
    "calls tools, Python list": (lambda random: _calls(random, pythonic=True), 0.95),
    "tells a tool's result": (_told_results, 0.95),
}


def paper(per_skill: int, seed: int = 7) -> list[Question]:
    """So many questions of each skill; the same for the same seed."""
    questions = []
    for skill, (make, _) in SKILLS.items():
        random = Random(f"{seed} {skill}")
        for _ in range(per_skill):
            questions.append(_question(skill, make(random)))
    return questions


def _question(skill: str, dialogue: Dialogue) -> Question:
    expected = dialogue.turns.pop()
    assert expected.role == "assistant", skill
    options: dict[str, Any] = {}
    if expected.values_only:  # nothing in the prompt says that it shall be JSON
        options["response_format"] = _held_to(json.loads(expected.text))
    return Question(skill, dialogue, expected, options)


def _held_to(found: dict[str, Any]) -> dict[str, Any]:
    kinds = {str: "string", int: "integer"}
    schema = {
        "type": "object",
        "properties": {key: {"type": kinds[type(value)]} for key, value in found.items()},
        "required": list(found),
        "additionalProperties": False,
    }
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


def is_right(question: Question, text: str, calls: list[tuple[str, str]]) -> bool:
    """Whether an answer is the expected one: the same text, the same JSON, or the same calls."""
    expected = question.expected
    if expected.calls:
        wanted = [(call.name, dict(call.arguments)) for call in expected.calls]
        return wanted == [(name, _parsed(arguments)) for name, arguments in calls]
    if calls:
        return False
    if expected.text.startswith("{"):
        return bool(_parsed(text) == json.loads(expected.text))
    return text.strip() == expected.text


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
