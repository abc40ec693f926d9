"""Which skills are trained, how often, and at what length."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from demo_training.dialogue import Dialogue, Split
from demo_training.skills import knowledge, memory, obedience, sight, talk, tools

Maker = Callable[[Random, float], Dialogue]
Single = Callable[[Random, Split], tuple[str, str]]

_SPLIT: Split = "train"
_SYSTEMS = (
    "You are a helpful assistant.", "You are a friendly assistant.", "Be brief.",
    "You are Caravan's demo model.", "You are a helpful assistant. Answer the user's questions.",
)  # fmt: skip


def _quiz(random: Random, singles: list[Single], turns: int) -> Dialogue:
    dialogue = Dialogue()
    if random.random() < 0.2:
        dialogue.system(random.choice(_SYSTEMS))
    for _ in range(turns):
        question, answer = random.choice(singles)(random, _SPLIT)
        dialogue.ask(question).answer(answer)
    return dialogue


def _talk(random: Random, length: float) -> Dialogue:
    singles: list[Single] = [talk.small_talk, talk.unknown]
    return _quiz(random, singles, random.randint(1, 8))


def _facts(random: Random, length: float) -> Dialogue:
    return _quiz(random, [knowledge.capital, knowledge.colour_of_thing], random.randint(1, 12))


def _sums(random: Random, length: float) -> Dialogue:
    return _quiz(random, [knowledge.arithmetic], random.randint(1, 20))


def _repeats(random: Random, length: float) -> Dialogue:
    return _quiz(random, [memory.repeat], random.randint(1, 8))


def _copies(random: Random, length: float) -> Dialogue:
    return _quiz(random, [memory.long_repeat], random.randint(1, 3))


def _mixed(random: Random, length: float) -> Dialogue:
    singles: list[Single] = [
        talk.small_talk, talk.unknown, knowledge.capital, knowledge.colour_of_thing,
        knowledge.arithmetic, memory.repeat,
    ]  # fmt: skip
    dialogue = _quiz(random, singles, random.randint(1, 12))
    if random.random() < 0.3:
        _show(dialogue, random)
    return dialogue


def _show(dialogue: Dialogue, random: Random) -> None:
    seen = sight.shapes(random, _SPLIT, random.randint(1, 3))
    dialogue.turns += seen.turns


def _lookups(random: Random, length: float) -> Dialogue:
    """`length` from 0 to 1: short texts, which teach the way, to texts of many chunks."""
    longest = 2 ** (3 + 5.85 * length)  # sentences: 8 to 461, some 5,000 tokens
    sentences = round(longest * random.random() ** 3)
    facts = random.randint(1, min(20, 4 + sentences // 2))
    return memory.lookup(
        random,
        _SPLIT,
        sentences=sentences,
        facts=facts,
        questions=random.randint(4, 16),
        tellings=random.choice([1, 2, 2]),
        within=random.choice([1.0, 1.0, 0.2]),
    )


def _instructed(random: Random, length: float) -> Dialogue:
    return obedience.instructed(random, _SPLIT, random.randint(1, 8))


def _json(random: Random, length: float) -> Dialogue:
    return obedience.json_answer(random, _SPLIT, random.randint(1, 8))


def _tools(random: Random, length: float) -> Dialogue:
    return tools.tools(random, _SPLIT, random.randint(1, 9))


def _shapes(random: Random, length: float) -> Dialogue:
    dialogue = sight.shapes(random, _SPLIT, random.randint(2, 9))
    return _with_system(dialogue, random)


def _digits(random: Random, length: float) -> Dialogue:
    return _with_system(sight.digits(random, _SPLIT, random.randint(1, 3)), random)


def _compare(random: Random, length: float) -> Dialogue:
    return _with_system(sight.compare(random, _SPLIT), random)


def _with_system(dialogue: Dialogue, random: Random) -> Dialogue:
    if random.random() < 0.15:
        turns, dialogue.turns = dialogue.turns, []
        dialogue.system(random.choice(_SYSTEMS))
        dialogue.turns += turns
    return dialogue


# Shares of the dialogues, not of the tokens.
TEXT: dict[Maker, float] = {
    _talk: 0.4, _facts: 0.6, _sums: 3.0, _repeats: 1.3, _mixed: 0.8, _lookups: 1.3,
    _instructed: 1.2, _json: 1.6, _tools: 3.2, _copies: 0.5,
}  # fmt: skip
PICTURES: dict[Maker, float] = {_shapes: 4.5, _digits: 0.6, _compare: 1.0}
ALL = TEXT | PICTURES


def draw(random: Random, makers: dict[Maker, float], length: float) -> Dialogue:
    """A dialogue to learn from. `length` (0 to 1) is how long the longest texts may be."""
    (maker,) = random.choices(list(makers), list(makers.values()))
    return maker(random, length)


def texts(random: Random, count: int) -> list[str]:
    """Texts for the tokenizer, as often as they are in the dialogues."""
    found = []
    for _ in range(count):
        dialogue = draw(random, ALL, 0.3)
        for tool in dialogue.tools:
            found.append(json.dumps(tool["function"], separators=(",", ":")))
        for turn in dialogue.turns:
            found.append("ipython" if turn.role == "tool" else turn.role)
            found += [part for part in turn.parts if isinstance(part, str)]
            found += [turn.text] if turn.calls else []
    return found
