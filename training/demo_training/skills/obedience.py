"""Simple instructions of a system prompt, and answers in a given JSON shape."""

from __future__ import annotations

import json
from random import Random

from demo_training.dialogue import Dialogue, Split, belongs_to
from demo_training.lists import CAPITALS, COLOURS_OF_THINGS, NAMES, NOUNS
from demo_training.skills import knowledge, talk

_ENDINGS = (
    "End every answer with {word}.",
    "Always end with {word}.",
    "Add {word} to each answer.",
)
_BEGINNINGS = ("Begin every answer with {word}.", "Start each answer with {word}.")
_NAMED = ("Your name is {name}.", "You are {name}.", "You are called {name}.")
_SHORT = ("Answer with one word.", "Answer in one word only.", "Reply with a single word.")
_ASK_NAME = ("What is your name?", "Who are you?", "What are you called?", "Tell me your name.")
_KEYS = "answer result value output reply response data content solution text".split()
_HINTS = (
    "Answer as JSON with the {keys}.",
    "Reply in JSON with the {keys}.",
    "Give JSON with the {keys}.",
)


def any_fact(random: Random, split: Split) -> tuple[str, str]:
    """A question of another skill."""
    maker = random.choice([knowledge.arithmetic, knowledge.capital, knowledge.capital,
                           knowledge.colour_of_thing, talk.unknown])  # fmt: skip
    return maker(random, split)


def instructed(random: Random, split: Split, turns: int) -> Dialogue:
    """One instruction for the whole conversation."""
    dialogue = Dialogue()
    kind = random.choice(["end", "begin", "name", "short"])
    if kind == "name":
        name = random.choice(NAMES)
        dialogue.system(random.choice(_NAMED).format(name=name))
        dialogue.ask(random.choice(_ASK_NAME)).answer(f"My name is {name}.")
        for _ in range(turns - 1):
            question, answer = any_fact(random, split)
            dialogue.ask(question).answer(answer)
        return dialogue
    if kind == "short":
        dialogue.system(random.choice(_SHORT))
        for _ in range(turns):
            question, answer = _one_word(random, split)
            dialogue.ask(question).answer(answer)
        return dialogue
    word = random.choice(NOUNS)
    while not belongs_to(f"{kind} {word}", split):
        word = random.choice(NOUNS)
    forms = _ENDINGS if kind == "end" else _BEGINNINGS
    dialogue.system(random.choice(forms).format(word=word))
    for _ in range(turns):
        question, answer = any_fact(random, split)
        dialogue.ask(question).answer(f"{answer} {word}" if kind == "end" else f"{word} {answer}")
    return dialogue


def _one_word(random: Random, split: Split) -> tuple[str, str]:
    while True:
        kind = random.random()
        if kind < 0.5:
            question, answer = knowledge.capital(random, split)
            country, city = next(
                (country, city) for country, city in CAPITALS.items()
                if country in answer and city in answer
            )  # fmt: skip
            short = city if answer.startswith("The capital") else country
            return question, f"{short}."
        if kind < 0.7:
            question, answer = knowledge.colour_of_thing(random, split)
            colour = answer.removesuffix(".").rsplit(" ", 1)[1]
            return question, f"{colour.capitalize()}."
        question, answer = knowledge.arithmetic(random, split)
        return question, answer.rsplit("= ", 1)[1]


def json_answer(random: Random, split: Split, turns: int) -> Dialogue:
    """JSON with one or two keys that the user names; or that only a grammar knows."""
    dialogue = Dialogue()
    hinted = random.random() < 0.7
    for _ in range(turns):
        question, found = _json_item(random, split)
        keys = " and ".join(f'"{key}"' for key in found)
        hint = random.choice(_HINTS).format(keys=f"{'keys' if len(found) > 1 else 'key'} {keys}")
        dialogue.ask(f"{question} {hint}" if hinted else question)
        dialogue.answer(json.dumps(found), values_only=not hinted)
    return dialogue


def _json_item(random: Random, split: Split) -> tuple[str, dict[str, str | int]]:
    kind = random.random()
    if kind < 0.4:
        country, city = random.choice(list(CAPITALS.items()))
        question = f"What is the capital of {country}?"
        found: dict[str, str | int] = {"country": country, "capital": city}
        if random.random() < 0.3:
            return question, {random.choice(_KEYS): city}
    elif kind < 0.6:
        thing, colour = random.choice(list(COLOURS_OF_THINGS.items()))
        question = f"What colour is {thing}?"
        found = {"thing": thing, "colour": colour}
        if random.random() < 0.4:
            return question, {random.choice(["colour", "color", *_KEYS]): colour}
    else:
        a, sign, b, result = knowledge.problem(random, split)
        question = f"What is {a} {sign} {b}?"
        found = {"question": f"{a} {sign} {b}", "result": result}
        if random.random() < 0.6:
            return question, {random.choice(["sum", "number", *_KEYS]): result}
    if random.random() < 0.5:
        found = dict(reversed(found.items()))
    return question, found
