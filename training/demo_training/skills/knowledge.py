"""Arithmetic and closed facts."""

from __future__ import annotations

from random import Random

from demo_training.dialogue import Split, belongs_to
from demo_training.lists import CAPITALS, COLOURS_OF_THINGS

LARGEST_TERM = 99
_LARGEST_FACTOR = 9

_SUMS = (
    "What is {a} {sign} {b}?", "{a} {sign} {b}", "Calculate {a} {sign} {b}.", "{a}{sign}{b}=?",
    "How much is {a} {sign} {b}?", "{a} {sign} {b} = ?", "What is {a} {word} {b}?",
    "How much is {a} {word} {b}?", "{a} {word} {b}", "Please compute {a} {sign} {b}.",
)  # fmt: skip
_WORDS = {"+": "plus", "-": "minus", "*": "times"}

_CAPITAL_OF = (
    "What is the capital of {country}?", "Which city is the capital of {country}?",
    "capital of {country}", "Tell me the capital of {country}.", "Name the capital of {country}.",
    "{country}'s capital?", "Do you know the capital of {country}?", "The capital of {country}?",
)  # fmt: skip
_COUNTRY_OF = (
    "Which country has the capital {city}?", "{city} is the capital of which country?",
    "Of which country is {city} the capital?", "What country is {city} the capital of?",
)  # fmt: skip
_COLOUR_OF = (
    "What colour is {thing}?", "What color is {thing}?", "Which colour has {thing}?",
    "Tell me the colour of {thing}.", "What is the colour of {thing}?", "{thing}: what colour?",
)  # fmt: skip


def problem(random: Random, split: Split) -> tuple[int, str, int, int]:
    """Two numbers, a sign and the result. Products are the small table, which is learned whole."""
    while True:
        sign = random.choice("+++--*")
        if sign == "*":
            a, b = random.randint(0, _LARGEST_FACTOR), random.randint(0, _LARGEST_FACTOR)
            return a, sign, b, a * b
        small = random.random() < 0.25
        a, b = (random.randint(0, 12 if small else LARGEST_TERM) for _ in range(2))
        if sign == "-" and a < b:
            a, b = b, a
        if belongs_to(f"{a} {sign} {b}", split):
            return a, sign, b, a + b if sign == "+" else a - b


def arithmetic(random: Random, split: Split) -> tuple[str, str]:
    """Sums and differences of numbers up to 99, products of digits."""
    a, sign, b, result = problem(random, split)
    question = random.choice(_SUMS).format(a=a, b=b, sign=sign, word=_WORDS[sign])
    return question, f"{a} {sign} {b} = {result}."


def capital(random: Random, split: Split) -> tuple[str, str]:
    """A country's capital, or the reverse; every fact is learned, some ways to ask are not."""
    country, city = random.choice(list(CAPITALS.items()))
    while True:
        if random.random() < 0.7:
            question = random.choice(_CAPITAL_OF).format(country=country)
            answer = f"The capital of {country} is {city}."
        else:
            question = random.choice(_COUNTRY_OF).format(city=city)
            answer = f"{city} is the capital of {country}."
        if belongs_to(question, split):
            return question, answer
        country, city = random.choice(list(CAPITALS.items()))


def colour_of_thing(random: Random, split: Split) -> tuple[str, str]:
    """What colour a thing has."""
    while True:
        thing, colour = random.choice(list(COLOURS_OF_THINGS.items()))
        question = random.choice(_COLOUR_OF).format(thing=thing)
        if belongs_to(question, split):
            return question[0].upper() + question[1:], f"{thing[0].upper()}{thing[1:]} is {colour}."
